#include "config/keyfile.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/local_keys.h"
#include "base/buf.h"
#include "config/file.h"
#include "base/mem.h"
#include "base/secret.h"

/* Room for the line end, and for the white space that editors and shells leave around it. */
enum { FILE_MAX = KEYFILE_KEY_MAX + 256 };

static const char blanks[] = " \t\r\n";

const char *keyfile_fault(const char *key)
{
	size_t n = strlen(key);

	if (n == 0)
		return "is empty";
	if (n > KEYFILE_KEY_MAX)
		return "is longer than 4096 bytes";
	for (const char *p = key; *p; p++) {
		if (*p <= ' ' || *p >= 0x7f)
			return "holds a space, a control character or a character beyond ASCII: "
			       "that is no key";
	}
	return NULL;
}

const char *keyfile_local_fault(const char *key)
{
	const char *why = keyfile_fault(key);

	if (why)
		return why;
	return strlen(key) < LOCAL_KEY_MIN ? "holds a key of less than 16 bytes: make one with "
					     "openssl rand -hex 32"
					   : NULL;
}
_Static_assert(LOCAL_KEY_MIN == 16, "the sentence above says so");

const char *keyfile_login_fault(const char *login)
{
	const char *colon = strchr(login, ':');

	if (!*login)
		return "is empty";
	if (strlen(login) > KEYFILE_KEY_MAX)
		return "is longer than 4096 bytes";
	for (const char *p = login; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return "holds more than one line, or a control character";
	}
	if (!colon || colon == login)
		return "does not hold user:password";
	return NULL;
}

/* One line without its end; a phrase if it is no header, or one that is hpkvd's own. */
static const char *header_fault(struct span line)
{
	/* clang-format off */
	static const char *const own[] = {
		"Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding",
		"Connection", "Upgrade", "TE", "Trailer", "Expect", "Range", "Accept",
		"Accept-Encoding", "x-api-key"};
	/* clang-format on */
	const char *colon = line.n ? memchr(line.p, ':', line.n) : NULL;
	size_t n = colon ? (size_t)(colon - line.p) : 0;

	if (n == 0)
		return "holds a line that is not a header (Name: value)";
	for (size_t i = 0; i < n; i++) {
		if (!isalnum((unsigned char)line.p[i]) && !strchr("!#$%&'*+-.^_`|~", line.p[i]))
			return "holds a line that is not a header (Name: value)";
	}
	for (size_t i = n; i < line.n; i++) {
		unsigned char c = (unsigned char)line.p[i];
		if ((c < ' ' && c != '\t') || c >= 0x7f)
			return "holds a control character, or one beyond ASCII";
	}
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
		if (strlen(own[i]) == n && strncasecmp(own[i], line.p, n) == 0)
			return "holds a header that hpkvd sends itself (Host, Content-Type, "
			       "Accept, x-api-key …)";
	}
	return NULL;
}

const char *keyfile_headers_fault(const char *lines)
{
	const char *why = *lines ? NULL : "is empty";

	if (strlen(lines) > KEYFILE_KEY_MAX)
		return "is longer than 4096 bytes";
	while (!why && *lines) {
		size_t n = strcspn(lines, "\n"), end = n;
		if (end && lines[end - 1] == '\r')
			end--;
		why = header_fault((struct span){lines, end});
		lines += n + (lines[n] == '\n');
	}
	return why;
}

static const char *access_fault(const struct stat *st)
{
	mode_t mode = st->st_mode;

	if (st->st_uid != 0 && st->st_uid != geteuid())
		return "belongs to another user, who could exchange it: chown it to root, or to "
		       "the user that hpkvd runs as";
	if (mode & S_IRWXO)
		return "can be used by others than its owner and group: chmod o= it";
	if (mode & S_IWGRP)
		return "can be written by its group: chmod g-w it";
	return NULL;
}

static const char *open_fault(int error)
{
	switch (error) {
	case -EISDIR:
		return "is a directory";
	case -EINVAL:
		return "is not a regular file";
	case -EACCES:
		return "cannot be read: permission denied";
	case -EMFILE:
	case -ENFILE:
		return "cannot be read: too many files are open";
	case -EIO:
		return "cannot be read: the disk has failed";
	default:
		return "cannot be read";
	}
}

/* Takes the key from the file's bytes, without the white space behind it. */
static int extract(const struct buf *b, keyfile_check *check, char **key, const char **why)
{
	struct span s = buf_span(b);

	while (s.n && memchr(blanks, s.p[s.n - 1], sizeof(blanks) - 1))
		s.n--;
	if (s.n && memchr(s.p, '\0', s.n)) {
		*why = "holds a NUL byte";
		return -EBADMSG;
	}
	char *text = secret_dupn(s.p, s.n);
	*why = check(text);
	if (!*why) {
		*key = text;
		return 0;
	}
	secret_free(&text);
	return -EBADMSG;
}

int keyfile_read(const char *path, keyfile_check *check, char **key, const char **why)
{
	struct buf b = {0};
	struct stat st;
	int fd = file_open(path, FILE_REGULAR, &st), error;

	if (fd < 0) {
		*why = open_fault(fd);
		return fd;
	}
	*why = access_fault(&st);
	if (*why) {
		error = -EACCES;
		goto out;
	}
	error = file_read(fd, FILE_MAX, &b);
	if (error == -EFBIG)
		*why = "is longer than 4096 bytes";
	else if (error)
		*why = "cannot be read";
	else
		error = extract(&b, check, key, why);
out:
	buf_wipe(&b);
	close(fd);
	return error;
}
