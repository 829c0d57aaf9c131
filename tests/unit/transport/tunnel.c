/* A proxy's answers: line by line as libcurl passes them on, and over a real socket at whose other
 * end each case is the proxy. */
#include "../test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../locked.h"
#include "transport/tunnel.h"

static struct tunnel_talk talk;
static char why[200];

static int begin(void **state)
{
	(void)state;
	talk = (struct tunnel_talk){0};
	return 0;
}

/* Returns whether libcurl is to go on. */
static bool reads(const char *line)
{
	struct span copy = copy_of(span_of(line));
	size_t n = tunnel_read(&talk, copy.p, copy.n);

	free_copy(copy);
	assert_true(n == 0 || n == copy.n);
	return n;
}

static const char *phrase(CURLcode result, const char *error)
{
	tunnel_phrase(&talk, result, error, why, sizeof(why));
	return why;
}

static void a_tunnel_is_there_at_the_end_of_the_head(void **state)
{
	static const char *const lines[] = {"HTTP/1.1 200 Connection established\r\n",
					    "HTTP/1.0 299\r\n", "HTTP/1.1 200 OK\n"};

	for (size_t i = 0; i < COUNT(lines); i++) {
		begin(state);
		assert_true(reads(lines[i]));
		assert_true(reads("Via: proxy\r\n"));
		assert_true(reads("x\r\n"));
		assert_true(reads("\rx\r\n"));
		assert_false(talk.over);
		assert_true(reads(i == 2 ? "\n" : "\r\n"));
		assert_true(talk.over);
	}
}

static void a_refusal_is_read_to_the_end_of_its_head(void **state)
{
	(void)state;
	assert_true(reads("HTTP/1.1 502 Bad Gateway\r\n"));
	assert_true(reads("Content-Length: 5\r\n"));
	assert_false(reads("\r\n"));
	assert_false(talk.over);
	assert_int_equal(talk.status, 502);
	assert_string_equal(phrase(CURLE_WRITE_ERROR, ""), "the proxy answered 502 (Bad Gateway)");
}

static void only_the_first_status_counts(void **state)
{
	(void)state;
	assert_true(reads("\r\n")); /* no answer has begun yet */
	assert_true(reads("HTTP/1.1 300 Many\r\n"));
	assert_true(reads("HTTP/1.1 200 OK\r\n"));
	assert_false(reads("\r\n"));
	assert_int_equal(talk.status, 300);
}

static void what_is_no_status_line(void **state)
{
	static const char *const lines[] = {
		"SSH-2.0-OpenSSH\r\n", "HTTP/2 200 OK\r\n",    "HTTP/1.2 200 OK\r\n",
		"HTTP/1.1 200OK\r\n",  "HTTP/1.1 2000 OK\r\n", "HTTP/1.1 OK\r\n",
	};

	for (size_t i = 0; i < COUNT(lines); i++) {
		begin(state);
		assert_true(reads(lines[i]));
		assert_int_equal(talk.status, 0);
		assert_string_equal(phrase(CURLE_WEIRD_SERVER_REPLY, ""),
				    "the proxy's answer is not HTTP");
	}
}

/* ... bounded, and nothing in it reaches a log as it is. */
static void the_words_of_the_proxy(void **state)
{
	char line[200], expected[200];

	assert_true(reads("HTTP/1.1 403 \x1b[31m no\ttab \xff~ \x7f\r\n"));
	assert_string_equal(talk.phrase, "?[31m no?tab ?~ ?");
	begin(state);
	assert_true(reads("HTTP/1.1 403\r\n"));
	assert_string_equal(talk.phrase, "");
	assert_string_equal(phrase(CURLE_WRITE_ERROR, ""), "the proxy answered 403");
	begin(state);
	snprintf(line, sizeof(line), "HTTP/1.1 403 %0*d\r\n", TUNNEL_PHRASE_MAX + 5, 7);
	assert_true(reads(line));
	snprintf(expected, sizeof(expected), "%0*d", TUNNEL_PHRASE_MAX, 0);
	assert_string_equal(talk.phrase, expected);
	begin(state);
	snprintf(line, sizeof(line), "HTTP/1.1 403 %0*d", TUNNEL_PHRASE_MAX + 1, 7);
	assert_true(reads(line));
	assert_string_equal(talk.phrase, expected);
	begin(state);
	assert_true(reads("HTTP/1.1 403 No"));
	assert_string_equal(talk.phrase, "No");
}

static void a_head_has_a_bound(void **state)
{
	char line[1025];

	(void)state;
	memset(line, 'x', 1024);
	line[1024] = '\0';
	memcpy(line, "HTTP/1.1 200 ", 13);
	for (size_t n = 0; n < TUNNEL_HEAD_MAX; n += 1024)
		assert_true(reads(line));
	assert_string_equal(phrase(CURLE_OPERATION_TIMEDOUT, ""),
			    "the proxy did not answer in time");
	assert_false(reads("\n"));
	assert_false(talk.over);
	assert_string_equal(phrase(CURLE_WRITE_ERROR, ""), "the proxy's answer is too long");
}

static void why_there_is_no_tunnel(void **state)
{
	(void)state;
	assert_string_equal(phrase(CURLE_RECV_ERROR, "reset"),
			    "the proxy closed the connection before it had answered");
	assert_string_equal(phrase(CURLE_OPERATION_TIMEDOUT, "timed out"),
			    "the proxy did not answer in time");
	assert_string_equal(phrase(CURLE_RECV_ERROR, "A value or data field grew too large"),
			    "the proxy's answer is too long");
	reads("HTTP/1.1 200 OK\r\n"); /* and the rest of its head never comes */
	assert_string_equal(phrase(CURLE_RECV_ERROR, ""),
			    "the proxy closed the connection before it had answered");
	begin(state);
	reads("HTTP/1.1 407 Who are you\r\n");
	assert_string_equal(phrase(CURLE_WRITE_ERROR, ""),
			    "the proxy answered 407 (Who are you): it wants credentials, see "
			    "proxy_credentials_file");
	talk.has_login = true;
	assert_string_equal(phrase(CURLE_WRITE_ERROR, ""),
			    "the proxy answered 407 (Who are you): it does not take our "
			    "credentials");
}

static void the_login_is_cut_at_its_first_colon_and_forgotten(void **state)
{
	static const char *const logins[] = {"me:a:b", NULL, "nobody"};

	for (size_t i = 0; i < COUNT(logins); i++) {
		CURL *easy = curl_easy_init();
		long before = locked_kb();
		begin(state);
		tunnel_prepare(&talk, easy, logins[i]);
		assert_int_equal(talk.has_login, i == 0);
		assert_string_equal(talk.user ? talk.user : "", i == 0 ? "me" : "");
		assert_string_equal(talk.password ? talk.password : "", i == 0 ? "a:b" : "");
		curl_easy_cleanup(easy);
		tunnel_forget(&talk);
		assert_int_equal(locked_kb(), before);
		assert_false(talk.has_login);
		assert_null(talk.user);
	}
}

/* ---- the dialogue ---- */

enum { WAIT_MS = 10000 }; /* for what is certain to come */

static struct event_base *base;
static struct tunnel *tunnel;
static int own, proxys; /* the ends of the connection */
static char heard[2000];
static struct {
	unsigned n;
	int status;
	char why[200]; /* "": the tunnel is there */
} answered;

static void on_answer(void *owner, const struct tunnel_answer *a)
{
	assert_ptr_equal(owner, &answered);
	answered.n++;
	answered.status = a->status;
	snprintf(answered.why, sizeof(answered.why), "%s", a->why ? a->why : "");
}

static void connect_to_proxy(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	/* Without waiting, as dial.c does: libcurl calls connect() once more. */
	own = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
	connect(own, (struct sockaddr *)&address, size);
	proxys = accept(listener, NULL, NULL);
	assert_true(proxys >= 0);
	close(listener);
}

static int begin_dialogue(void **state)
{
	begin(state);
	heard[0] = '\0';
	answered.n = 0;
	setenv("no_proxy", "*", 1); /* is for others */
	base = event_base_new();
	connect_to_proxy();
	return 0;
}

static int end_dialogue(void **state)
{
	(void)state;
	assert_true(fcntl(own, F_GETFD) >= 0); /* it stays its owner's */
	close(own);
	close(proxys);
	event_base_free(base);
	return 0;
}

static void ask(const char *host, const char *login, int timeout_ms)
{
	const struct tunnel_wish wish = {
		.fd = own, .host = host, .port = 443, .login = login, .timeout_ms = timeout_ms};

	tunnel = tunnel_new(base, &wish, on_answer, &answered);
	assert_non_null(tunnel);
}

/* Runs the loop for a moment; fails when nothing has come of it for long. */
static void turn(int *left_ms)
{
	struct pollfd p = {.fd = proxys, .events = POLLIN};

	event_base_loop(base, EVLOOP_NONBLOCK);
	poll(&p, 1, 5);
	*left_ms -= 5;
	assert_true(*left_ms > 0);
}

static void hear_request(void)
{
	size_t n = 0;

	for (int left_ms = WAIT_MS; !strstr(heard, "\r\n\r\n"); turn(&left_ms)) {
		ssize_t got = recv(proxys, heard + n, sizeof(heard) - 1 - n, MSG_DONTWAIT);
		assert_int_not_equal(got, 0);
		n += got > 0 ? (size_t)got : 0;
		heard[n] = '\0';
	}
}

static void say(const char *text)
{
	assert_int_equal(send(proxys, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void expect_answer(int status, const char *reason)
{
	for (int left_ms = WAIT_MS; !answered.n; event_base_loop(base, EVLOOP_NONBLOCK)) {
		poll(NULL, 0, 5);
		left_ms -= 5;
		assert_true(left_ms > 0);
	}
	assert_int_equal(answered.n, 1);
	assert_int_equal(answered.status, status);
	assert_string_equal(answered.why, reason);
}

static void a_tunnel(void **state)
{
	char behind[20] = "";
	long before = locked_kb();

	(void)state;
	ask("service", "me:a:b", WAIT_MS);
	assert_int_equal(answered.n, 0);
	hear_request();
	assert_ptr_equal(strstr(heard, "CONNECT service:443 HTTP/1.1\r\n"), heard);
	assert_non_null(strstr(heard, "\r\nProxy-Authorization: Basic bWU6YTpi\r\n"));
	say("HTTP/1.1 200 OK\r\nVia: pr");
	for (int left_ms = 50; left_ms > 10; turn(&left_ms))
		assert_int_equal(answered.n, 0);
	say("oxy\r\n\r\nthe service");
	expect_answer(200, "");
	assert_int_equal(recv(own, behind, sizeof(behind) - 1, 0), strlen("the service"));
	assert_string_equal(behind, "the service");
	assert_int_equal(locked_kb(), before);
}

static void to_an_address(void **state)
{
	(void)state;
	ask("::1", NULL, WAIT_MS);
	hear_request();
	assert_ptr_equal(strstr(heard, "CONNECT [::1]:443 HTTP/1.1\r\n"), heard);
	assert_null(strstr(heard, "Authorization"));
	say("HTTP/1.0 407 Login\r\n\r\n");
	expect_answer(407, "the proxy answered 407 (Login): it wants credentials, see "
			   "proxy_credentials_file");
}

static void a_proxy_that_goes(void **state)
{
	(void)state;
	ask("service", NULL, WAIT_MS);
	hear_request();
	shutdown(proxys, SHUT_WR);
	expect_answer(0, "the proxy closed the connection before it had answered");
}

static void a_silent_proxy(void **state)
{
	(void)state;
	ask("service", NULL, 50);
	expect_answer(0, "the proxy did not answer in time");
}

static void a_proxy_of_many_words(void **state)
{
	char line[1027];

	for (int one_line = 0; one_line < 2; one_line++) {
		ask("service", NULL, WAIT_MS);
		hear_request();
		memset(line, 'x', 1024);
		memcpy(line, "Via: ", 5);
		strcpy(line + 1024, one_line ? "" : "\r\n");
		say("HTTP/1.1 200 OK\r\n");
		for (int i = 0; i < 17; i++)
			say(line);
		expect_answer(200, "the proxy's answer is too long");
		end_dialogue(state);
		begin_dialogue(state);
	}
}

static void it_is_called_off(void **state)
{
	(void)state;
	ask("service", "me:a", WAIT_MS);
	hear_request();
	tunnel_cancel(tunnel);
	say("HTTP/1.1 200 OK\r\n\r\n");
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(answered.n, 0);
	assert_int_equal(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED), 0);
}

#define DIALOGUE(name) cmocka_unit_test_setup_teardown(name, begin_dialogue, end_dialogue)
#define CASE(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(a_tunnel_is_there_at_the_end_of_the_head),
		CASE(a_refusal_is_read_to_the_end_of_its_head),
		CASE(only_the_first_status_counts),
		CASE(what_is_no_status_line),
		CASE(the_words_of_the_proxy),
		CASE(a_head_has_a_bound),
		CASE(why_there_is_no_tunnel),
		CASE(the_login_is_cut_at_its_first_colon_and_forgotten),
		DIALOGUE(a_tunnel),
		DIALOGUE(to_an_address),
		DIALOGUE(a_proxy_that_goes),
		DIALOGUE(a_silent_proxy),
		DIALOGUE(a_proxy_of_many_words),
		DIALOGUE(it_is_called_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
