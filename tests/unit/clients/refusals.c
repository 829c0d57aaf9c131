/* refusals.c - connections that are refused, over socketpairs, with a clock of the test's. */
#include "clients/refusals.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../loop.h"
#include "../test.h"

/* refusals.c: a client's first byte has 20 ms to come, its last line another second to be read. */
enum { TOLD_MS = 20, CLOSED_MS = 1020 };

static struct refusals *refusals;
static int peers[REFUSALS_MAX + 2];
static unsigned n;

static int begin(void **state)
{
	(void)state;
	loop_begin(1000, 1);
	n = 0;
	refusals = refusals_new(NULL);
	return 0;
}

static int end(void **state)
{
	(void)state;
	if (refusals)
		refusals_free(refusals);
	for (unsigned i = 0; i < n; i++)
		close(peers[i]);
	assert_int_equal(loop_timers(), 0);
	return 0;
}

/* The other end of a connection that is refused, which says this first. */
static int refused(enum refusal_speech speech, const char *why, const char *says)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	peers[n++] = fd[1];
	assert_int_equal(write(fd[1], says, strlen(says)), (ssize_t)strlen(says));
	refusals_add(refusals, fd[0], speech, why);
	return fd[1];
}

/* All that it is told by now. */
static const char *told(int fd)
{
	static char text[1000];
	size_t len = 0;
	ssize_t got;

	while ((got = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)got;
	text[len] = '\0';
	return text;
}

static bool sees_the_end(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 0;
}

static bool is_closed(int fd)
{
	return send(fd, "\n", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

static void each_is_told_in_its_speech(void **state)
{
	static const struct {
		enum refusal_speech speech;
		const char *says, *begins;
	} rows[] = {
		{REFUSAL_LINES, "", "{\"code\":503,"},
		{REFUSAL_LINES, "GET / HTTP/1.1\r\n", "{\"code\":503,"},
		{REFUSAL_HTTP, "", "HTTP/1.1 503 "},
		{REFUSAL_HTTP, "{\"op\":1}\n", "HTTP/1.1 503 "},
		{REFUSAL_LINES_OR_HTTP, "", "{\"code\":503,"},
		{REFUSAL_LINES_OR_HTTP, "{\"op\":1}\n", "{\"code\":503,"},
		{REFUSAL_LINES_OR_HTTP, "GET / HTTP/1.1\r\n", "HTTP/1.1 503 "},
	};
	int fd[COUNT(rows)];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		fd[i] = refused(rows[i].speech, NULL, rows[i].says);
	loop_pass(TOLD_MS);
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *text = told(fd[i]);
		if (strncmp(text, rows[i].begins, strlen(rows[i].begins)) != 0 ||
		    !strstr(text, "too many clients"))
			fail_msg("row %zu is told %s", i, text);
	}
}

static void it_is_told_why(void **state)
{
	char why[300];
	int without = refused(REFUSAL_LINES, NULL, "");
	int with = refused(REFUSAL_LINES, "No room.", "");
	int shortest = refused(REFUSAL_LINES, "!", "");

	(void)state;
	memset(why, 'w', sizeof(why));
	why[sizeof(why) - 1] = '\0';
	int longest = refused(REFUSAL_LINES, why, "");
	loop_pass(TOLD_MS);
	assert_null(strstr(told(without), "No room."));
	assert_non_null(strstr(told(with), "No room."));
	assert_non_null(strstr(told(shortest), "\"!\""));
	const char *text = told(longest);
	assert_non_null(strstr(text, "wwww"));
	assert_true(strlen(text) < sizeof(why));
}

static void its_first_byte_has_time_to_come(void **state)
{
	int fd = refused(REFUSAL_LINES_OR_HTTP, NULL, "");

	(void)state;
	loop_pass(TOLD_MS - 1);
	assert_string_equal(told(fd), "");
	assert_int_equal(write(fd, "G", 1), 1);
	loop_pass(1);
	assert_memory_equal(told(fd), "HTTP/", 5);
}

static void it_is_told_once_and_closed_a_second_later(void **state)
{
	int fd = refused(REFUSAL_LINES, NULL, "");

	(void)state;
	assert_int_equal(loop_pass(CLOSED_MS - 1), 1);
	assert_non_null(strchr(told(fd), '\n'));
	assert_true(sees_the_end(fd));
	assert_false(is_closed(fd));
	assert_int_equal(loop_pass(1), 1);
	assert_string_equal(told(fd), "");
	assert_true(is_closed(fd));
	assert_int_equal(loop_pending(), 0);
}

static void each_has_its_own_time(void **state)
{
	int first = refused(REFUSAL_LINES, NULL, "");

	(void)state;
	loop_pass(TOLD_MS / 2);
	int second = refused(REFUSAL_LINES, NULL, "");
	loop_pass(TOLD_MS / 2);
	assert_string_not_equal(told(first), "");
	assert_string_equal(told(second), "");
	loop_pass(TOLD_MS / 2);
	assert_string_not_equal(told(second), "");
	loop_pass(CLOSED_MS - TOLD_MS - TOLD_MS / 2);
	assert_true(is_closed(first));
	assert_false(is_closed(second));
	loop_pass(TOLD_MS / 2);
	assert_true(is_closed(second));
}

static void for_one_more_the_oldest_goes(void **state)
{
	int fd[REFUSALS_MAX + 1];

	(void)state;
	for (unsigned i = 0; i < REFUSALS_MAX; i++)
		fd[i] = refused(REFUSAL_LINES, NULL, "");
	assert_string_equal(told(fd[0]), "");
	fd[REFUSALS_MAX] = refused(REFUSAL_LINES, NULL, "");
	assert_non_null(strstr(told(fd[0]), "too many clients"));
	assert_true(is_closed(fd[0]));
	for (unsigned i = 1; i <= REFUSALS_MAX; i++)
		assert_string_equal(told(fd[i]), "");
	loop_pass(TOLD_MS);
	for (unsigned i = 1; i <= REFUSALS_MAX; i++)
		assert_non_null(strstr(told(fd[i]), "too many clients"));
}

static void at_the_end_all_are_told(void **state)
{
	int before = refused(REFUSAL_LINES, NULL, "");

	(void)state;
	loop_pass(TOLD_MS);
	told(before);
	int fresh = refused(REFUSAL_HTTP, NULL, "");
	refusals_free(refusals);
	refusals = NULL;
	assert_string_equal(told(before), "");
	assert_non_null(strstr(told(fresh), "too many clients"));
	assert_true(is_closed(before));
	assert_true(is_closed(fresh));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(each_is_told_in_its_speech),
		CASE(it_is_told_why),
		CASE(its_first_byte_has_time_to_come),
		CASE(it_is_told_once_and_closed_a_second_later),
		CASE(each_has_its_own_time),
		CASE(for_one_more_the_oldest_goes),
		CASE(at_the_end_all_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
