/* Socket paths: what others do to the folder while a socket is made, and what is left when its mode
 * or its group can't be changed. What the daemon does with whole sockets is tests/daemon's. */
#include "clients/socketpath.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../test.h"

static char folder[] = "/tmp/hpkvd-test-XXXXXX", path[64], other[64], moved[64];

/* ---- in the place of the C library's ---- */

static void (*behind_bind)(void);
static bool chown_fails;
static unsigned naps;

int bind(int fd, const struct sockaddr *at, socklen_t n)
{
	int result = (int)syscall(SYS_bind, fd, at, n);

	if (result == 0 && behind_bind)
		behind_bind();
	return result;
}

int fchownat(int at, const char *name, uid_t uid, gid_t gid, int flags)
{
	if (chown_fails) {
		errno = EPERM;
		return -1;
	}
	return (int)syscall(SYS_fchownat, at, name, uid, gid, flags);
}

int nanosleep(const struct timespec *wanted, struct timespec *left)
{
	(void)wanted, (void)left;
	naps++;
	return 0;
}

/* ---- */

static const struct socketpath_settings usual = {
	.path = path, .mode = 0660, .group = (gid_t)-1, .setting = "a setting"};

static int begin(void **state)
{
	(void)state;
	strcpy(folder + strlen(folder) - 6, "XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/sock", folder);
	snprintf(other, sizeof(other), "%s/other", folder);
	snprintf(moved, sizeof(moved), "%s/moved", folder);
	behind_bind = NULL;
	chown_fails = false;
	naps = 0;
	return 0;
}

static int end(void **state)
{
	(void)state;
	unlink(path);
	unlink(other);
	unlink(moved);
	return rmdir(folder);
}

static struct stat looks(const char *name)
{
	struct stat st;

	assert_int_equal(lstat(name, &st), 0);
	return st;
}

/* A file of the daemon's user that nobody else may read. */
static void make_file(void)
{
	int fd = open(other, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static int make_socket(const char *name)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(at.sun_path, name);
	assert_int_equal(syscall(SYS_bind, fd, &at, sizeof(at)), 0);
	assert_int_equal(chmod(name, 0600), 0);
	return fd;
}

static void put_a_link(void)
{
	assert_int_equal(rename(path, moved), 0);
	assert_int_equal(symlink(other, path), 0);
}

static void put_another_name(void)
{
	assert_int_equal(rename(path, moved), 0);
	assert_int_equal(link(other, path), 0);
}

static void put_nothing(void)
{
	assert_int_equal(unlink(path), 0);
}

static void assert_refused(void)
{
	struct socketpath made = {0};

	assert_int_equal(socketpath_open(&usual, &made), -ESTALE);
	assert_null(made.path);
}

static void what_a_link_leads_to_is_not_opened_up(void **state)
{
	(void)state;
	make_file();
	behind_bind = put_a_link;
	assert_refused();
	assert_int_equal(looks(other).st_mode, S_IFREG | 0600);
	assert_true(S_ISLNK(looks(path).st_mode));
}

static void assert_other_socket_stays(void (*put)(void))
{
	int fd = make_socket(other);

	behind_bind = put;
	assert_refused();
	assert_int_equal(looks(other).st_mode, S_IFSOCK | 0600);
	close(fd);
}

static void nor_is_a_socket_that_a_link_leads_to(void **state)
{
	(void)state;
	assert_other_socket_stays(put_a_link);
}

static void nor_is_a_file_that_has_got_the_name_as_well(void **state)
{
	(void)state;
	make_file();
	behind_bind = put_another_name;
	assert_refused();
	assert_int_equal(looks(other).st_mode, S_IFREG | 0600);
}

static void nor_is_another_socket(void **state)
{
	(void)state;
	assert_other_socket_stays(put_another_name);
}

static void one_that_is_removed_at_once_is_not_served(void **state)
{
	(void)state;
	behind_bind = put_nothing;
	assert_refused();
}

static int open_usual(struct socketpath *made)
{
	int fd = socketpath_open(&usual, made);

	assert_true(fd >= 0);
	assert_int_equal(looks(path).st_mode, S_IFSOCK | 0660);
	return fd;
}

static void a_socket_in_its_place_is_not_opened_up_later(void **state)
{
	struct socketpath made;
	int fd = open_usual(&made), stranger;

	(void)state;
	assert_int_equal(rename(path, moved), 0);
	stranger = make_socket(path);
	assert_false(socketpath_is(&made, path));
	assert_int_equal(socketpath_set_access(&made, 0666, (gid_t)-1), -ESTALE);
	assert_int_equal(looks(path).st_mode, S_IFSOCK | 0600);
	socketpath_remove(&made);
	looks(path);
	close(stranger);
	close(fd);
}

static void a_group_that_can_not_be_given_changes_nothing(void **state)
{
	struct socketpath made;
	int fd = open_usual(&made);
	struct stat before = looks(path);

	(void)state;
	chown_fails = true;
	assert_int_equal(socketpath_set_access(&made, 0606, before.st_gid + 1), -EPERM);
	assert_int_equal(looks(path).st_mode, S_IFSOCK | 0660);
	assert_int_equal(looks(path).st_gid, before.st_gid);
	socketpath_remove(&made);
	close(fd);
}

/* One that we may give a file to; skips where there is none. */
static gid_t another_group(gid_t present)
{
	gid_t groups[1024];
	int n = getgroups(1024, groups);

	if (geteuid() == 0)
		return present + 1;
	while (n-- > 0) {
		if (groups[n] != present)
			return groups[n];
	}
	skip();
	return present;
}

static void without_a_group_it_gets_its_own_back(void **state)
{
	struct socketpath made;
	int fd = open_usual(&made);
	gid_t own = looks(path).st_gid, given = another_group(own);

	(void)state;
	if (socketpath_set_access(&made, 0660, given) == -EPERM) { /* root of a small namespace */
		socketpath_remove(&made);
		close(fd);
		skip();
	}
	assert_int_equal(looks(path).st_gid, given);
	assert_int_equal(socketpath_set_access(&made, 0660, (gid_t)-1), 0);
	assert_int_equal(looks(path).st_gid, own);
	assert_int_equal(looks(path).st_mode, S_IFSOCK | 0660);
	socketpath_remove(&made);
	close(fd);
}

static void only_who_may_wait_waits_for_the_folder(void **state)
{
	struct socketpath_settings patient = usual;
	struct socketpath made;
	int lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	assert_int_equal(flock(lock, LOCK_SH), 0);
	close(open_usual(&made));
	assert_int_equal(naps, 0);
	socketpath_remove(&made);
	patient.may_wait = true;
	int fd = socketpath_open(&patient, &made);
	assert_true(fd >= 0);
	assert_in_range(naps, 10, 1000);
	socketpath_remove(&made);
	close(fd);
	close(lock);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_a_link_leads_to_is_not_opened_up),
		CASE(nor_is_a_socket_that_a_link_leads_to),
		CASE(nor_is_a_file_that_has_got_the_name_as_well),
		CASE(nor_is_another_socket),
		CASE(one_that_is_removed_at_once_is_not_served),
		CASE(a_socket_in_its_place_is_not_opened_up_later),
		CASE(a_group_that_can_not_be_given_changes_nothing),
		CASE(without_a_group_it_gets_its_own_back),
		CASE(only_who_may_wait_waits_for_the_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
