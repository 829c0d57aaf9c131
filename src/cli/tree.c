#include "tree.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/output.h"
#include "cli.h"
#include "visible.h"

enum { BOX_MODE = 0711, TARGET_MAX = 1024 };

static const char link_name[] = "link", due_name[] = "due";

static bool fail(const struct tree *t, const char *what, int error)
{
	cli_say("%s: %s %s: %s", t->o->who, what, visible_sentence(hpkv_str(t->path)),
		strerror(error < 0 ? -error : error));
	return false;
}

static mode_t folder_mode(const struct tree_options *o)
{
	return o->mode | (o->mode & 0444) >> 2;
}

static char *join(const char *a, const char *between, const char *b)
{
	char *text;

	if (asprintf(&text, "%s%s%s", a, between, b) < 0)
		abort(); /* no memory */
	return text;
}

/* ---- the link ---- */

/* The name of the present tree in the box. 1: there is a link. 0: there is none. -errno; -EINVAL:
 * something else has this name. */
static int find_link(const struct tree *t, char target[TARGET_MAX])
{
	size_t n = strlen(t->box);
	ssize_t got = readlinkat(t->parent_fd, t->name, target, TARGET_MAX - 1);

	if (got < 0)
		return errno == ENOENT ? 0 : -errno;
	target[got] = '\0';
	if (strncmp(target, t->box, n) != 0 || target[n] != '/' || strchr(target + n + 1, '/'))
		return -EINVAL;
	memmove(target, target + n + 1, strlen(target + n + 1) + 1);
	return 1;
}

/* The same, with a message on failure. */
static int read_link(const struct tree *t, char target[TARGET_MAX])
{
	int found = find_link(t, target);

	if (found == -EINVAL)
		cli_say("%s: %s is there, and is no link that %s has made: move it away", t->o->who,
			visible_sentence(hpkv_str(t->path)), t->o->who);
	else if (found < 0)
		fail(t, "can't read", found);
	return found;
}

/* ---- what goes ---- */

static void remove_path(char *path)
{
	char *paths[] = {path, NULL};
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *entry;

	while (walk && (entry = fts_read(walk))) {
		if (entry->fts_info == FTS_D)
			chmod(entry->fts_accpath, 0700); /* its owner may not write in it */
		else if (entry->fts_info == FTS_DP)
			rmdir(entry->fts_accpath);
		else
			unlink(entry->fts_accpath);
	}
	if (walk)
		fts_close(walk);
}

static char *path_in_box(const struct tree *t, const char *name)
{
	char *box = join(t->parent, "/", t->box), *path = join(box, "/", name);

	free(box);
	return path;
}

static void remove_tree(const struct tree *t, const char *name)
{
	char *path = path_in_box(t, name);

	remove_path(path);
	free(path);
}

/* Removes all but the present tree and the note. */
static bool sweep(const struct tree *t)
{
	char present[TARGET_MAX] = "";
	struct dirent *entry;

	if (read_link(t, present) < 0)
		return false;
	int fd = openat(t->box_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *entries = fd < 0 ? NULL : fdopendir(fd);
	while (entries && (entry = readdir(entries))) {
		const char *name = entry->d_name;
		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
		    strcmp(name, present) != 0 && strcmp(name, due_name) != 0)
			remove_tree(t, name);
	}
	if (entries)
		closedir(entries);
	return true;
}

/* ---- the beginning ---- */

static bool split(struct tree *t)
{
	size_t n = strlen(t->path);

	while (n > 1 && t->path[n - 1] == '/')
		n--;
	char *path = mem_strndup(t->path, n), *slash = strrchr(path, '/');
	t->name = mem_strdup(slash ? slash + 1 : path);
	t->parent = slash == path ? mem_strdup("/")
		    : slash       ? mem_strndup(path, (size_t)(slash - path))
				  : mem_strdup(".");
	free(path);
	t->box = join(".", t->name, ".hpkv");
	if (*t->name && strcmp(t->name, ".") != 0 && strcmp(t->name, "..") != 0)
		return true;
	cli_say("%s: '%s' is no name that a directory can be given", t->o->who,
		visible_sentence(hpkv_str(t->path)));
	return false;
}

/* Nobody else may have made the box, who could exchange trees in it. */
static bool open_box(struct tree *t)
{
	struct stat st;

	t->parent_fd = open(t->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->parent_fd < 0)
		return fail(t, "can't open the folder of", errno);
	if (mkdirat(t->parent_fd, t->box, BOX_MODE) && errno != EEXIST)
		return fail(t, "can't make a folder beside", errno);
	t->box_fd = openat(t->parent_fd, t->box, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (t->box_fd < 0 || fstat(t->box_fd, &st))
		return fail(t, "can't open the folder beside", errno);
	if (st.st_uid != geteuid()) {
		cli_say("%s: %s/%s belongs to somebody else", t->o->who,
			visible_sentence(hpkv_str(t->parent)), visible_name(hpkv_str(t->box)));
		return false;
	}
	if (flock(t->box_fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK)
			return fail(t, "can't lock", errno);
		cli_say("%s: another one keeps %s already", t->o->who,
			visible_sentence(hpkv_str(t->path)));
		return false;
	}
	if (fchmod(t->box_fd, BOX_MODE))
		return fail(t, "can't set the mode of the folder beside", errno);
	return true;
}

bool tree_begin(struct tree *t, const char *path, const struct tree_options *o)
{
	*t = (struct tree){.o = o, .path = path, .parent_fd = -1, .box_fd = -1, .fresh_fd = -1};
	return split(t) && open_box(t) && sweep(t);
}

/* ---- a new tree ---- */

static void close_box(struct tree *t)
{
	if (t->box_fd >= 0)
		close(t->box_fd);
	if (t->parent_fd >= 0)
		close(t->parent_fd);
	t->box_fd = t->parent_fd = -1;
}

/* Is the open folder still the one of this name? */
static bool has_box(const struct tree *t)
{
	char *path = path_in_box(t, ".");
	struct stat open_one, named;

	bool same = t->box_fd >= 0 && fstat(t->box_fd, &open_one) == 0 && stat(path, &named) == 0 &&
		    open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
	free(path);
	return same;
}

/* The folder may have been removed, or the one that it is in. */
static bool ensure_box(struct tree *t)
{
	char present[TARGET_MAX];

	if (has_box(t))
		return read_link(t, present) >= 0;
	close_box(t);
	return open_box(t) && sweep(t);
}

bool tree_make(struct tree *t)
{
	char now[32];
	time_t seconds = time(NULL);
	struct tm tm;

	if (!ensure_box(t))
		return false;
	strftime(now, sizeof(now), "%Y%m%dT%H%M%SZ", gmtime_r(&seconds, &tm));
	for (;;) {
		if (asprintf(&t->fresh, "%s-%u", now, ++t->made) < 0)
			abort(); /* no memory */
		if (mkdirat(t->box_fd, t->fresh, 0700) == 0)
			break;
		int error = errno;
		free(t->fresh);
		t->fresh = NULL;
		if (error != EEXIST)
			return fail(t, "can't make a tree for", error);
	}
	t->fresh_fd = openat(t->box_fd, t->fresh, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return t->fresh_fd >= 0 || fail(t, "can't open a tree for", errno);
}

int tree_add_folders(struct tree *t, const char *name)
{
	for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
		char *folder = mem_strndup(name, (size_t)(slash - name));
		int error = mkdirat(t->fresh_fd, folder, 0700) && errno != EEXIST ? -errno : 0;
		free(folder);
		if (error)
			return error;
	}
	return 0;
}

/* A limit of the size of files must not end the program. */
static int write_value(int fd, struct span value)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;

	sigaction(SIGXFSZ, &ignore, &before);
	int error = output_write(fd, value.p, value.n);
	sigaction(SIGXFSZ, &before, NULL);
	return error;
}

int tree_add(struct tree *t, const char *name, struct span value)
{
	const struct tree_options *o = t->o;
	int fd = openat(t->fresh_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			0600);
	int error = fd < 0 ? -errno : write_value(fd, value);

	if (!error && fchown(fd, o->owner, o->group))
		error = errno == EINVAL ? -EPERM : -errno; /* EINVAL would be about the name */
	if (!error && fchmod(fd, o->mode)) /* afterwards: a new owner may take bits away */
		error = -errno;
	if (fd >= 0 && close(fd) && !error)
		error = -errno;
	return error;
}

char *tree_path(const struct tree *t)
{
	char *path = path_in_box(t, t->fresh), *whole = realpath(path, NULL);

	if (!whole)
		return path;
	free(path);
	return whole;
}

/* Folders get their modes when nothing more comes into them. */
static int finish_folders(const struct tree *t)
{
	char *path = path_in_box(t, t->fresh), *paths[] = {path, NULL};
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	int error = walk ? 0 : -errno;
	FTSENT *entry;

	while (!error && (entry = fts_read(walk))) {
		if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR)
			error = -entry->fts_errno;
		else if (entry->fts_info == FTS_DP &&
			 (lchown(entry->fts_accpath, t->o->owner, t->o->group) ||
			  chmod(entry->fts_accpath, folder_mode(t->o))))
			error = -errno;
	}
	if (walk)
		fts_close(walk);
	free(path);
	return error;
}

bool tree_finish(struct tree *t)
{
	int error = finish_folders(t);

	if (!error && syncfs(t->fresh_fd))
		error = -errno;
	return !error || fail(t, "can't write a tree for", error);
}

static void forget_fresh(struct tree *t)
{
	if (t->fresh_fd >= 0)
		close(t->fresh_fd);
	t->fresh_fd = -1;
	free(t->fresh);
	t->fresh = NULL;
}

/* The note is on the disk before the exchange is. */
static int note_due(const struct tree *t)
{
	int fd = openat(t->box_fd, due_name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	int error = fd < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	if (!error && fsync(t->box_fd) && errno != EINVAL)
		error = -errno;
	return error;
}

bool tree_exchange(struct tree *t, bool due)
{
	char former[TARGET_MAX] = "", *target = join(t->box, "/", t->fresh);
	int had = read_link(t, former);

	if (had < 0) {
		free(target);
		return false;
	}
	unlinkat(t->box_fd, link_name, 0);
	int error = due ? note_due(t) : 0;
	if (!error && symlinkat(target, t->box_fd, link_name))
		error = -errno;
	free(target);
	if (!error && renameat(t->box_fd, link_name, t->parent_fd, t->name))
		error = -errno;
	if (error)
		return fail(t, "can't exchange", error);
	forget_fresh(t);
	/* Without this, a machine that loses power may come back with the former link. */
	if (fsync(t->parent_fd) && errno != EINVAL)
		return fail(t, "can't put on the disk:", errno);
	if (had)
		remove_tree(t, former);
	return true;
}

void tree_discard(struct tree *t)
{
	if (t->fresh)
		remove_tree(t, t->fresh);
	forget_fresh(t);
}

/* ---- the present tree ---- */

bool tree_is_due(const struct tree *t)
{
	return faccessat(t->box_fd, due_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void tree_done(const struct tree *t)
{
	unlinkat(t->box_fd, due_name, 0);
}

bool tree_is_there(const struct tree *t)
{
	char present[TARGET_MAX];
	struct stat st;

	return has_box(t) && find_link(t, present) == 1 &&
	       fstatat(t->box_fd, present, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static bool has_owner(const struct tree *t, const struct stat *st)
{
	const struct tree_options *o = t->o;

	return (o->owner == (uid_t)-1 || o->owner == st->st_uid) &&
	       (o->group == (gid_t)-1 || o->group == st->st_gid);
}

bool tree_has(const struct tree *t, const char *name, struct span value)
{
	char *path = join(t->name, "/", name);
	int fd = openat(t->parent_fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char *p = mem_alloc(value.n + 1);
	struct stat st;
	size_t n = 0;
	ssize_t got = 1;

	bool same = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
		    (st.st_mode & 07777) == t->o->mode && has_owner(t, &st);
	while (same && n <= value.n && (got = read(fd, p + n, value.n + 1 - n)) > 0)
		n += (size_t)got;
	same = same && got == 0 && span_equal(value, (struct span){p, n});
	if (fd >= 0)
		close(fd);
	free(p);
	free(path);
	return same;
}

long tree_count(const struct tree *t)
{
	char *link = join(t->parent, "/", t->name), *path = join(link, "/", "."),
	     *paths[] = {path, NULL};
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *entry;
	long n = 0;

	while (walk && n >= 0 && (entry = fts_read(walk))) {
		const struct stat *st = entry->fts_statp;
		if (entry->fts_info == FTS_NS || entry->fts_info == FTS_DNR)
			n = -1;
		else if (entry->fts_info == FTS_D &&
			 ((st->st_mode & 07777) != folder_mode(t->o) || !has_owner(t, st)))
			n = -1;
		else if (entry->fts_info != FTS_D && entry->fts_info != FTS_DP)
			n++;
	}
	if (walk)
		fts_close(walk);
	free(link);
	free(path);
	return walk ? n : -1;
}

void tree_end(struct tree *t)
{
	tree_discard(t);
	close_box(t);
	free(t->parent);
	free(t->name);
	free(t->box);
}
