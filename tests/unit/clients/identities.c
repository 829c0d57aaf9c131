/* identities.c - this process is the one that opens connections. Some kernels are the test's. */
#include "clients/identities.h"

#include <errno.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../logged.h"

enum { GROUP = 30001, MANY = 200, GROUPS_MAX = 65536 };

static struct identities ids;
static int fd[2];

/* A kernel that is asked for groups wants this much room at each call, and has none to tell at the
 * last. Without a row the real one is asked. */
static struct {
	const socklen_t *wants;
	size_t n, asked;
	int error;   /* 0: ERANGE */
	bool nobody; /* the user is -1 */
} kernel;

int getsockopt(int s, int level, int name, void *value, socklen_t *size)
{
	if (name == SO_PEERGROUPS && kernel.n > 0) {
		assert_true(kernel.asked < kernel.n);
		*size = kernel.wants[kernel.asked++];
		errno = kernel.error ? kernel.error : ERANGE;
		return *size || kernel.error ? -1 : 0;
	}
	int err = (int)syscall(SYS_getsockopt, s, level, name, value, size);
	if (name == SO_PEERCRED && kernel.nobody)
		((struct ucred *)value)->uid = (uid_t)-1;
	return err;
}

static void connect_anew(void)
{
	if (fd[0] > 0) {
		close(fd[0]);
		close(fd[1]);
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
}

static int begin(void **state)
{
	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	identities_init(&ids);
	connect_anew();
	return 0;
}

static int end(void **state)
{
	(void)state;
	identities_fini(&ids);
	close(fd[0]);
	close(fd[1]);
	fd[0] = 0;
	return 0;
}

/* GROUP and those behind it. */
static void be_in_groups(size_t n)
{
	gid_t groups[MANY];

	for (size_t i = 0; i < n; i++)
		groups[i] = GROUP + (gid_t)i;
	if (setgroups(n, groups) < 0)
		skip(); /* only root can be in others */
	connect_anew();
}

static void the_kernel_is_asked(void **state)
{
	(void)state;
	struct peer_identity who = identities_ask(&ids, fd[0]);

	assert_true(who.known);
	assert_false(who.by_key);
	assert_int_equal(who.pid, getpid());
	assert_int_equal(who.uid, geteuid());
	assert_int_equal(who.gid, getegid());
	assert_int_equal(who.n_groups, getgroups(0, NULL));
}

static void who_is_not_told_is_nobody(void **state)
{
	(void)state;
	struct peer_identity who = identities_ask(&ids, -1);

	assert_false(who.known);
	assert_int_equal(who.uid, (uid_t)-1);
	assert_int_equal(who.gid, (gid_t)-1);
	assert_int_equal(who.n_groups, 0);
}

static void groups_may_be_more_or_fewer(void **state)
{
	static const size_t numbers[] = {0, 1, MANY, 3, MANY - 1};

	(void)state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		be_in_groups(numbers[i]);
		struct peer_identity who = identities_ask(&ids, fd[0]);
		assert_int_equal(who.n_groups, numbers[i]);
		for (size_t g = 0; g < numbers[i]; g++)
			assert_int_equal(who.groups[g], GROUP + g);
	}
	assert_false(ids.failed);
}

static size_t groups_of(const socklen_t *wants, size_t n)
{
	kernel.wants = wants;
	kernel.n = n;
	kernel.asked = 0;
	struct peer_identity who = identities_ask(&ids, fd[0]);
	assert_int_equal(kernel.asked, n);
	assert_true(who.known);
	assert_int_equal(who.uid, geteuid());
	return who.n_groups;
}

static void room_grows_while_groups_do(void **state)
{
	static const socklen_t growing[] = {40, 400, 0}, all[] = {GROUPS_MAX * sizeof(gid_t), 0};

	(void)state;
	assert_int_equal(groups_of(growing, 3), 0);
	assert_int_equal(groups_of(all, 2), 0);
	assert_int_equal(ids.size, all[0]);
	assert_false(ids.failed);
}

static void a_kernel_that_tells_no_groups_is_asked_once(void **state)
{
	static const socklen_t more[] = {40, 0}, as_much[] = {40},
			       too_much[] = {(GROUPS_MAX + 1) * sizeof(gid_t)}, none[] = {80};

	(void)state;
	assert_int_equal(groups_of(more, 2), 0);
	log_begin(LOG_LEVEL_WARNING);
	assert_int_equal(groups_of(as_much, 1), 0);
	assert_logged("can't find out the supplementary groups of clients");
	assert_int_equal(groups_of(too_much, 1), 0);
	kernel.error = ENOPROTOOPT;
	assert_int_equal(groups_of(none, 1), 0);
	assert_int_equal(lines_logged(), 0); /* said already */
	log_end();
}

static void a_user_without_a_number_is_nobody(void **state)
{
	(void)state;
	kernel.nobody = true;
	struct peer_identity who = identities_ask(&ids, fd[0]);
	assert_false(who.known);
	assert_int_equal(who.gid, (gid_t)-1);
	assert_int_equal(who.n_groups, 0);
}

static void ids_that_stand_for_others_are_hidden(void **state)
{
	(void)state;
	be_in_groups(3);
	ids.nobody = (struct overflow_ids){.uid = geteuid(), .gid = GROUP + 1};
	struct peer_identity who = identities_nameable(&ids, identities_ask(&ids, fd[0]));
	assert_int_equal(who.uid, (uid_t)-1);
	assert_int_equal(who.gid, getegid());
	assert_int_equal(who.n_groups, 2);
	assert_int_equal(who.groups[0], GROUP);
	assert_int_equal(who.groups[1], GROUP + 2);
	ids.nobody = (struct overflow_ids){.uid = geteuid() + 1, .gid = getegid()};
	who = identities_nameable(&ids, identities_ask(&ids, fd[0]));
	assert_int_equal(who.uid, geteuid());
	assert_int_equal(who.gid, (gid_t)-1);
	assert_int_equal(who.n_groups, 3);
}

static void they_are_read_again(void **state)
{
	struct overflow_ids before = ids.nobody;

	(void)state;
	ids.nobody = (struct overflow_ids){.uid = 1, .gid = 1};
	identities_renew(&ids);
	assert_int_equal(ids.nobody.uid, before.uid);
	assert_int_equal(ids.nobody.gid, before.gid);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_kernel_is_asked),
		CASE(who_is_not_told_is_nobody),
		CASE(groups_may_be_more_or_fewer),
		CASE(ids_that_stand_for_others_are_hidden),
		CASE(they_are_read_again),
		CASE(room_grows_while_groups_do),
		CASE(a_kernel_that_tells_no_groups_is_asked_once),
		CASE(a_user_without_a_number_is_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
