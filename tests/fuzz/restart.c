/* What a hpkvd leaves to the one that takes its place (restart.h), as it might be after another
 * version, another program or a person has written it: the variables of passed sockets, the text
 * that names the socket's file, and a key in a pipe. Whatever they are, nothing of it stays in the
 * environment, and only the file that is meant is taken over.
 *
 * A line each: LISTEN_PID (@: this process), LISTEN_FDS, LISTEN_FDNAMES, HPKVD_OWN_SOCKET (@: the
 * numbers of a file that is there, ~: its path), HPKVD_KEY_FD (@: a pipe), the key. "-": not set.
 */
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clients/socketpath.h"
#include "config/environment.h"
#include "fuzz.h"
#include "service/activation.h"
#include "service/listen_fds.h"

#include "base/buf.h"

const struct span fuzz_seeds[] = {
	SPAN("@\n2\nhttp:http-own\n@:4294967295:~\n@\na key"),
	SPAN("@\n0\n-\n@:0:~/../x\n-\n"),
	SPAN("1\n3\n-\n1:2:3:/x\n99999999999\n\n"),
	SPAN("@\n65\n::a:\n@::~\n@\n"),
	SPAN("@\n-1\n-\n @:-1:~\n3\n-"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

enum { OPEN = 4 }; /* descriptors that could be passed sockets */

/* A path whose file stays as it is. */
static const char place[] = "/dev/null";

static void open_some(void)
{
	for (int fd = LISTEN_FDS_START; fd < LISTEN_FDS_START + OPEN; fd++) {
		if (fcntl(fd, F_GETFD) < 0) {
			int new = open(place, O_RDONLY | O_CLOEXEC);
			must(new >= 0);
			if (new != fd) {
				must(dup2(new, fd) == fd);
				close(new);
			}
		}
	}
}

static struct span next_line(struct span *rest)
{
	const char *lf = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;
	struct span line = {rest->p, lf ? (size_t)(lf - rest->p) : rest->n};

	rest->p += line.n + (lf != NULL);
	rest->n -= line.n + (lf != NULL);
	return line;
}

/* A line's text, in memory of its own: without NUL, and with what @ and ~ stand for. */
static char *text_of(struct span line, const char *name, const char *at)
{
	struct buf out = {0};

	if (name)
		buf_addf(&out, "%s=", name);
	for (size_t i = 0; i < line.n && line.p[i]; i++) {
		if (line.p[i] == '@' || line.p[i] == '~')
			buf_addf(&out, "%s", line.p[i] == '@' ? at : place);
		else
			buf_add(&out, line.p + i, 1);
	}
	buf_add(&out, "", 1);
	char *copy = fuzz_memory(buf_len(&out));
	memcpy(copy, buf_span(&out).p, buf_len(&out));
	buf_release(&out);
	return copy;
}

/* putenv() copies nothing, and setenv() never frees. The caller frees it when it is not set any
 * more; NULL: not set. */
static char *set(struct span line, const char *name, const char *at)
{
	if (span_equal(line, SPAN("-")))
		return NULL;
	char *entry = text_of(line, name, at);
	must(putenv(entry) == 0);
	return entry;
}

static void check_sockets(struct span *rest)
{
	char pid[24];
	struct listen_fds passed;

	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	char *a = set(next_line(rest), "LISTEN_PID", pid);
	char *b = set(next_line(rest), "LISTEN_FDS", "1");
	char *c = set(next_line(rest), "LISTEN_FDNAMES", "http");
	int n = listen_fds_take(&passed);
	must(n <= LISTEN_FDS_MAX && (n <= 0 || (a && b && n == passed.n)));
	for (int i = 0; i < n; i++) {
		must(fcntl(LISTEN_FDS_START + i, F_GETFD) == FD_CLOEXEC);
		must(strnlen(passed.names[i], sizeof(passed.names[i])) <= LISTEN_FDS_NAME_MAX);
		must(!strchr(passed.names[i], ':'));
	}
	must(!getenv("LISTEN_PID") && !getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES"));
	free(a);
	free(b);
	free(c);
}

/* Handed on once more it is the same again. */
static void check_inherited(struct socketpath *s)
{
	struct stat there, here;
	char *text;

	must(s->path[0] == '/' && lstat(place, &there) == 0 && lstat(s->path, &here) == 0);
	must(here.st_dev == there.st_dev && here.st_ino == there.st_ino);
	must(here.st_dev == s->dev && here.st_ino == s->ino);
	gid_t group = s->own_group;
	text = socketpath_hand_over(s); /* leaves the file where it is */
	must(!s->path && socketpath_inherit(text, s) && s->own_group == group);
	free(text);
	free(socketpath_hand_over(s));
}

static void check_own_socket(struct span line)
{
	char numbers[64];
	struct socketpath s = {0};
	struct stat st;

	must(stat(place, &st) == 0);
	snprintf(numbers, sizeof(numbers), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	char *entry = set(line, "HPKVD_OWN_SOCKET", numbers);
	char *text = activation_own_socket();
	must((text != NULL) == (entry != NULL) && !getenv("HPKVD_OWN_SOCKET"));
	if (text && socketpath_inherit(text, &s))
		check_inherited(&s);
	must(!s.path);
	free(text);
	free(entry);
}

static void check_key(struct span number, struct span key)
{
	char fd[16];
	int ends[2];

	must(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
	size_t n = key.n < PIPE_BUF ? key.n : PIPE_BUF;
	must(n == 0 || write(ends[1], key.p, n) == (ssize_t)n);
	close(ends[1]);
	snprintf(fd, sizeof(fd), "%d", ends[0]);
	char *entry = set(number, "HPKVD_KEY_FD", fd);
	struct config_environment *e = config_environment_take();
	must(!getenv("HPKVD_KEY_FD"));
	bool meant = entry && span_equal(number, SPAN("@"));
	must(!meant || fcntl(ends[0], F_GETFD) < 0); /* closed */
	must(!meant || (e->api_key != NULL) == (n > 0));
	if (meant && n)
		must(strlen(e->api_key) == strnlen(key.p, n) &&
		     memcmp(e->api_key, key.p, strlen(e->api_key)) == 0);
	config_environment_free(e);
	if (fcntl(ends[0], F_GETFD) >= 0)
		close(ends[0]);
	free(entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = {(const char *)data, size};

	open_some();
	unsetenv("HPKV_API_KEY");
	check_sockets(&rest);
	check_own_socket(next_line(&rest));
	struct span number = next_line(&rest);
	check_key(number, rest);
	return 0;
}
