/* What connections are opened with: how long lists may be, what is learnt about that, what the
 * service's answers mean, and when a token is old. Over a token client and a loop that each case
 * controls. */
#include "../test.h"

#include <stdio.h>

#include "codec/json.h"
#include "../locked.h"
#include "../loop.h"
#include "base/mem.h"
#include "base/secret.h"
#include "upstream/credentials.h"

enum {
	LIFETIME = 7200000,
	LINE_MAX_BYTES = 15000, /* of a request line */
	PATH_OWN = sizeof("/v1/ws?token=") - 1,
	TEN_MINUTES = 600000,
};

/* ---- the token client ---- */

struct token_client {
	int timeout_ms;
};

struct token_client_request {
	token_client_done *done;
	void *owner;
	char key[40], keys[40], patterns[40], access[40]; /* their beginnings */
	size_t keys_n, patterns_n;
};

static struct token_client_request *request; /* in progress; or NULL */
static unsigned requests;
static int timeout_ms;

struct token_client *token_client_new(struct event_base *base,
				      const struct token_client_settings *config)
{
	(void)base;
	timeout_ms = config->timeout_ms;
	return mem_zalloc(sizeof(struct token_client));
}

void token_client_set_timeout(struct token_client *m, int ms)
{
	(void)m;
	timeout_ms = ms;
}

void token_client_free(struct token_client *m)
{
	free(m);
}

static void keep(char kept[40], struct span text)
{
	snprintf(kept, 40, "%.*s", (int)text.n, text.n ? text.p : "");
}

struct token_client_request *token_client_mint(struct token_client *m,
					       const struct token_client_params *wish,
					       token_client_done *done, void *owner)
{
	(void)m;
	assert_null(request);
	request = mem_zalloc(sizeof(*request));
	*request = (struct token_client_request){.done = done,
						 .owner = owner,
						 .keys_n = wish->subscribe_keys.n,
						 .patterns_n = wish->subscribe_patterns.n};
	keep(request->key, span_of(wish->api_key ? wish->api_key : ""));
	keep(request->keys, wish->subscribe_keys);
	keep(request->patterns, wish->subscribe_patterns);
	keep(request->access, wish->access_pattern);
	requests++;
	return request;
}

void token_client_cancel(struct token_client_request *r)
{
	assert_ptr_equal(r, request);
	free(request);
	request = NULL;
}

static void answer(const struct token_client_answer *a)
{
	struct token_client_request r = *request;

	free(request);
	request = NULL;
	r.done(r.owner, a);
}

static void refuse(int status, int retry_after_s)
{
	answer(&(struct token_client_answer){
		.http_status = status, .retry_after_s = retry_after_s, .why = "no"});
}

/* A token of this many bytes. */
static void mint(size_t n)
{
	char *token = mem_alloc(n + 1);

	memset(token, 't', n);
	token[n] = '\0';
	answer(&(struct token_client_answer){
		.token = token, .http_status = 200, .retry_after_s = -1});
	free(token);
}

static void mint_for(int lifetime_s)
{
	answer(&(struct token_client_answer){.token = "ttt",
					     .expires_in_s = lifetime_s,
					     .http_status = 200,
					     .retry_after_s = -1});
}

/* ---- whoever asks ---- */

static struct credentials *credentials;
static char *key;
static long locked_before;
static struct stats stats;
static size_t
	wanted; /* bytes of the list of everything that is wanted, brackets included; 0: nothing */
static size_t allowed; /* when the last list was asked for */
static struct credentials_answer told;
static unsigned told_n;

/* A list of one string that fills the budget. */
static size_t makes_list(void *owner, size_t budget, struct buf *list)
{
	(void)owner;
	allowed = budget;
	size_t n = wanted < budget ? wanted : budget;
	if (n < 5) {
		buf_add(list, "[]", 2);
		return 0;
	}
	buf_add(list, "[\"", 2);
	for (size_t i = 4; i < n; i++)
		buf_add(list, "x", 1);
	buf_add(list, "\"]", 2);
	return 1;
}

static void is_told(void *owner, const struct credentials_answer *a)
{
	(void)owner;
	told = *a;
	told_n++;
}

static const struct credentials_ops ops = {.make_list = makes_list, .answer = is_told};

static void expect(enum credentials_verdict verdict)
{
	assert_int_equal(told_n, 1);
	assert_int_equal(told.verdict, verdict);
	if (verdict == CREDENTIALS_READY || verdict == CREDENTIALS_NONE ||
	    verdict == CREDENTIALS_TOO_LONG)
		assert_int_equal(told.retry_after_s, -1);
	told_n = 0;
}

static struct credentials_settings settings(void)
{
	return (struct credentials_settings){
		.token_client = {.host = "service",
				 .path = "/v1/token/websocket",
				 .timeout_ms = 500},
		.path_prefix = "/v1",
		.api_key = key,
		.fields = TOKEN_CLIENT_SUBSCRIBE_KEYS | TOKEN_CLIENT_SUBSCRIBE_PATTERNS,
		.access_pattern = ".*",
		.lifetime_ms = LIFETIME,
	};
}

static void make(const struct credentials_settings *s)
{
	credentials = credentials_new(NULL, s, &ops, NULL, &stats);
}

static int begin(void **state)
{
	struct credentials_settings s;

	(void)state;
	locked_before = locked_kb();
	key = secret_dup("key+/");
	s = settings();
	loop_begin(TEN_MINUTES, 1);
	stats = (struct stats){0};
	requests = told_n = 0;
	wanted = 100;
	make(&s);
	return 0;
}

static int end(void **state)
{
	(void)state;
	credentials_free(credentials);
	secret_free(&key);
	assert_null(request);
	assert_int_equal(loop_timers(), 0);
	assert_int_equal(locked_kb(), locked_before); /* no secret is left */
	return 0;
}

static void get_token(size_t n)
{
	credentials_ask(credentials);
	mint(n);
	expect(CREDENTIALS_READY);
}

/* ---- what is asked for ---- */

static void a_list_goes_out_under_both_names(void **state)
{
	(void)state;
	credentials_ask(credentials);
	assert_int_equal(told_n, 0);
	assert_string_equal(request->key, "key+/");
	assert_int_equal(request->keys_n, 100);
	assert_int_equal(request->patterns_n, 100);
	assert_string_equal(request->access, "\".*\"");
	mint(300);
	expect(CREDENTIALS_READY);
	assert_int_equal(stats.tokens_minted, 1);
}

static void remake(const struct credentials_settings *s)
{
	credentials_free(credentials);
	make(s);
}

static void or_under_one(void **state)
{
	struct credentials_settings s = settings();
	size_t both;

	(void)state;
	credentials_ask(credentials);
	both = allowed;
	refuse(500, -1);
	s.access_pattern = "";
	for (int i = 0; i < 2; i++) {
		s.fields = i ? TOKEN_CLIENT_SUBSCRIBE_KEYS : TOKEN_CLIENT_SUBSCRIBE_PATTERNS;
		remake(&s);
		credentials_ask(credentials);
		assert_int_equal(request->keys_n, i ? 100 : 0);
		assert_int_equal(request->patterns_n, i ? 0 : 100);
		assert_string_equal(request->access, "");
		assert_in_range(allowed, 2 * both - 100, 2 * both + 100);
		refuse(500, -1);
	}
}

static void without_a_key_a_token_is_asked_for_nothing(void **state)
{
	struct credentials_settings s = settings();

	(void)state;
	s.api_key = NULL;
	remake(&s);
	wanted = 0;
	credentials_ask(credentials);
	assert_string_equal(request->keys, "[]");
	assert_string_equal(request->patterns, "[]");
	assert_int_equal(request->keys_n, 2);
	mint(3);
	expect(CREDENTIALS_READY);
}

static void it_ends_while_a_token_is_asked_for(void **state)
{
	(void)state;
	credentials_ask(credentials);
}

static void nothing_is_wanted(void **state)
{
	(void)state;
	wanted = 0;
	credentials_ask(credentials);
	assert_int_equal(told_n, 0); /* not from within */
	assert_true(credentials_is_asking(credentials));
	loop_turn();
	assert_false(credentials_is_asking(credentials));
	expect(CREDENTIALS_NONE);
	assert_int_equal(requests, 0);
}

static void it_is_called_off(void **state)
{
	(void)state;
	credentials_ask(credentials);
	assert_true(credentials_is_asking(credentials));
	credentials_cancel(credentials);
	assert_false(credentials_is_asking(credentials));
	assert_null(request);
	wanted = 0;
	credentials_ask(credentials);
	credentials_cancel(credentials);
	loop_pass(1000);
	assert_int_equal(told_n, 0);
	credentials_cancel(credentials); /* accepting once more does nothing */
	credentials_set_times(credentials, 77, LIFETIME);
	assert_int_equal(timeout_ms, 77);
}

/* ---- what answers mean ---- */

static void verdicts(void **state)
{
	static const struct {
		int status;
		enum credentials_verdict verdict;
	} cases[] = {
		{401, CREDENTIALS_UNAUTHORIZED}, {403, CREDENTIALS_UNAUTHORIZED},
		{400, CREDENTIALS_REFUSED},      {422, CREDENTIALS_REFUSED},
		{413, CREDENTIALS_TOO_LONG},     {0, CREDENTIALS_FAILED},
		{404, CREDENTIALS_FAILED},       {429, CREDENTIALS_FAILED},
		{500, CREDENTIALS_FAILED},       {503, CREDENTIALS_FAILED},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		wanted = 100;
		credentials_ask(credentials);
		refuse(cases[i].status, 7);
		expect(cases[i].verdict);
		assert_int_equal(told.retry_after_s,
				 cases[i].verdict == CREDENTIALS_TOO_LONG ? -1 : 7);
		assert_int_equal(told.limited, cases[i].status == 429);
		assert_string_equal(told.why, "no");
	}
	assert_int_equal(stats.token_failures, COUNT(cases));
	assert_null(credentials_path(credentials));
}

/* ---- which one is in force ---- */

static void a_token_is_in_force_once_it_is_accepted(void **state)
{
	(void)state;
	get_token(3);
	assert_string_equal(credentials_new_path(credentials), "/v1/ws?token=ttt");
	assert_null(credentials_path(credentials));
	credentials_accept(credentials);
	assert_string_equal(credentials_path(credentials), "/v1/ws?token=ttt");
	get_token(4);
	credentials_reject(credentials);
	credentials_accept(credentials); /* of no token: zero */
	assert_string_equal(credentials_path(credentials), "/v1/ws?token=ttt");
	get_token(4);
	credentials_accept(credentials);
	assert_string_equal(credentials_path(credentials), "/v1/ws?token=tttt");
	credentials_forget(credentials);
	assert_null(credentials_path(credentials));
}

static void a_newer_one_takes_the_place_of_one_that_nobody_has_accepted(void **state)
{
	(void)state;
	get_token(3);
	get_token(4);
	assert_string_equal(credentials_new_path(credentials), "/v1/ws?token=tttt");
}

static void one_that_failed_leaves_the_former(void **state)
{
	(void)state;
	get_token(3);
	credentials_accept(credentials);
	credentials_ask(credentials);
	refuse(500, -1);
	credentials_accept(credentials);
	assert_string_equal(credentials_path(credentials), "/v1/ws?token=ttt");
}

static void the_key_is_encoded(void **state)
{
	char *path = credentials_make_key_path(credentials);

	(void)state;
	assert_string_equal(path, "/v1/ws?apiKey=key%2B%2F");
	secret_free(&path);
}

static void a_token_is_as_old_as_its_request(void **state)
{
	int64_t asked = loop_now;

	(void)state;
	credentials_ask(credentials);
	loop_pass(5000);
	mint(3);
	loop_pass(5000);
	credentials_accept(credentials);
	assert_int_equal(credentials_renew_at(credentials), asked + LIFETIME / 4 * 3);
	assert_int_equal(credentials_expires_at(credentials), asked + LIFETIME);
	credentials_set_times(credentials, 500, LIFETIME / 2);
	assert_int_equal(credentials_expires_at(credentials), asked + LIFETIME / 2);
	loop_pass(LIFETIME / 4);
	loop_sleep(LIFETIME / 4 - 10001); /* its age includes the machine's sleep */
	assert_non_null(credentials_path(credentials));
	loop_pass(1);
	assert_null(credentials_path(credentials));
}

/* No longer than the setting says. */
static void a_token_lives_as_long_as_its_answer_says(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		int seconds = i ? LIFETIME / 1000 + 1 : 3600;
		credentials_ask(credentials);
		mint_for(seconds);
		credentials_accept(credentials);
		assert_int_equal(credentials_expires_at(credentials),
				 loop_now + (i ? LIFETIME : 3600000));
		told_n = 0;
	}
}

static void renewals_are_counted(void **state)
{
	(void)state;
	get_token(3);
	credentials_accept(credentials);
	get_token(3);
	credentials_accept(credentials); /* for a new subscription */
	assert_int_equal(stats.token_renewals, 0);
	loop_pass(LIFETIME / 4 * 3);
	get_token(3);
	credentials_accept(credentials);
	assert_int_equal(stats.token_renewals, 1);
}

/* ---- how long a list may be ---- */

static void the_first_guess_leaves_room_for_the_token(void **state)
{
	(void)state;
	credentials_ask(credentials);
	/* Twice the list, in base64, and the rest of a token. */
	assert_in_range(allowed, (LINE_MAX_BYTES - 500) / 3, LINE_MAX_BYTES * 3 / 8);
	refuse(500, -1);
}

/* It is part of the token, in base64. */
static void a_longer_access_pattern_leaves_less_room(void **state)
{
	struct credentials_settings s = settings();
	char pattern[10 * 1024 + 1];
	size_t before;

	(void)state;
	memset(pattern, 'a', sizeof(pattern));
	pattern[1002] = '\0'; /* 1000 bytes longer than ".*" */
	s.access_pattern = pattern;
	credentials_ask(credentials);
	before = allowed;
	refuse(500, -1);
	remake(&s);
	credentials_ask(credentials);
	assert_in_range(before - allowed, 1500 * 3 / 8 - 1, 1500 * 3 / 8 + 1);
	refuse(500, -1);
	pattern[1002] = 'a';
	pattern[sizeof(pattern) - 1] = '\0'; /* too long for any list: an empty one is allowed */
	remake(&s);
	told_n = 0;
	credentials_ask(credentials);
	assert_int_equal(allowed, 2);
	loop_turn();
	expect(CREDENTIALS_NONE);
}

/* A service whose tokens grow with their lists by this factor; returns how long the list becomes.
 */
static size_t settled(double growth, unsigned *asked)
{
	wanted = 1 << 20;
	for (requests = 0; requests < 20;) {
		credentials_ask(credentials);
		mint((size_t)(200 + growth * (double)request->keys_n));
		if (told.verdict == CREDENTIALS_READY) {
			told_n = 0;
			*asked = requests;
			credentials_ask(credentials); /* with the factor that was learnt */
			size_t n = request->keys_n;
			refuse(500, -1);
			told_n = 0;
			return n;
		}
		expect(CREDENTIALS_TOO_LONG);
	}
	fail_msg("no list is short enough");
	return 0;
}

static void it_learns_how_tokens_grow(void **state)
{
	unsigned asked;

	(void)state;
	size_t n = settled(2.5, &asked);
	assert_int_equal(asked, 1);
	assert_in_range(n, 5000, 6000);
	n = settled(8, &asked); /* ... that grow more than was learnt */
	assert_in_range(asked, 2, 3);
	assert_in_range(n, 1400, 1900);
	n = settled(1, &asked); /* ... that grow less */
	assert_int_equal(asked, 1);
	assert_in_range(n, 12000, 15000);
	n = settled(0.5, &asked);
	assert_in_range(n, 27000, 30000);
}

static void a_short_list_says_little(void **state)
{
	size_t before;

	(void)state;
	wanted = 64;
	get_token(1000); /* the factor is about 12 */
	credentials_ask(credentials);
	before = allowed;
	assert_in_range(before, 1100, 1300);
	mint(1000);
	told_n = 0;
	wanted = 10; /* and a much shorter list has a token of the same length */
	get_token(1000);
	wanted = 64;
	credentials_ask(credentials);
	assert_int_equal(allowed, before);
	refuse(500, -1);
}

static void tokens_that_do_not_grow_allow_long_lists(void **state)
{
	(void)state;
	get_token(30);
	wanted = SIZE_MAX;
	wanted = 3 << 20;
	credentials_ask(credentials);
	assert_int_equal(allowed, 8 << 20);
	assert_int_equal(request->keys_n, 3 << 20);
	mint(30);
	expect(CREDENTIALS_READY);
}

/* Whatever the service does: each list is shorter than the one before, until there is none. */
static void tokens_that_are_always_too_long(void **state)
{
	size_t before = SIZE_MAX;

	(void)state;
	wanted = 1 << 20;
	for (requests = 0;; before = allowed) {
		unsigned n = requests;
		credentials_ask(credentials);
		if (n == requests)
			break;
		assert_true(allowed < before);
		mint(LINE_MAX_BYTES);
		expect(CREDENTIALS_TOO_LONG);
		assert_true(requests < 60);
	}
	loop_turn();
	expect(CREDENTIALS_NONE);
	credentials_ask(credentials); /* what was learnt may not hold any more */
	assert_in_range(allowed, 1000, LINE_MAX_BYTES);
	refuse(500, -1);
	told_n = 0;
}

/* It shows little about the factor, but it is certainly too long itself. */
static void a_short_list_whose_token_is_too_long(void **state)
{
	(void)state;
	wanted = 40;
	credentials_ask(credentials);
	mint(2 * LINE_MAX_BYTES);
	expect(CREDENTIALS_TOO_LONG);
	wanted = 0;
	credentials_ask(credentials);
	assert_in_range(allowed, 0, 39);
}

static void a_token_is_encoded_before_it_is_too_long(void **state)
{
	struct token_client_answer a = {.http_status = 200, .retry_after_s = -1};
	char token[6001];

	(void)state;
	memset(token, '/', 6000); /* three times as long in a path */
	token[6000] = '\0';
	a.token = token;
	credentials_ask(credentials);
	answer(&a);
	expect(CREDENTIALS_TOO_LONG);
}

static void a_list_that_the_service_finds_too_large(void **state)
{
	size_t n;

	(void)state;
	wanted = 1000;
	credentials_ask(credentials);
	refuse(413, 5);
	expect(CREDENTIALS_TOO_LONG);
	credentials_ask(credentials);
	assert_int_equal(allowed, 500);
	n = request->keys_n;
	mint(100);
	expect(CREDENTIALS_READY);
	assert_int_equal(n, 500);
}

/* Too short to be too large: then something else in the list is refused. */
static void a_small_list_that_the_service_finds_too_large(void **state)
{
	(void)state;
	wanted = 64;
	credentials_ask(credentials);
	refuse(413, -1);
	expect(CREDENTIALS_REFUSED);
}

static void an_upgrade_is_refused_for_its_length(int status)
{
	size_t before;

	wanted = 1 << 20;
	credentials_ask(credentials);
	before = allowed;
	mint(10000);
	expect(CREDENTIALS_READY);
	assert_true(credentials_was_refused(credentials, status));
	assert_string_equal(credentials_new_path(credentials) ? "kept" : "gone", "gone");
	credentials_ask(credentials);
	assert_in_range(allowed, before / 4, before);
	mint(9000); /* it is longer than three quarters of that */
	expect(CREDENTIALS_TOO_LONG);
}

static void upgrades_that_are_refused_for_their_length(void **state)
{
	(void)state;
	an_upgrade_is_refused_for_its_length(414);
}

static void or_for_their_headers(void **state)
{
	(void)state;
	an_upgrade_is_refused_for_its_length(431);
}

static void upgrades_that_are_refused_for_something_else(void **state)
{
	(void)state;
	get_token(10000);
	assert_false(credentials_was_refused(credentials, 403));
	get_token(10000);
	assert_false(credentials_was_refused(credentials, 503));
	get_token(512 - PATH_OWN); /* no service refuses such a short line for its length */
	assert_false(credentials_was_refused(credentials, 431));
	assert_false(credentials_was_refused(credentials, 431)); /* and there is none any more */
}

/* A path with a token is at most this long. */
static void expect_longest_path(size_t n)
{
	credentials_ask(credentials);
	mint(n + 1 - PATH_OWN);
	expect(CREDENTIALS_TOO_LONG);
	get_token(n - PATH_OWN);
}

static void how_long_a_path_may_be(void **state)
{
	static const struct {
		size_t refused, most, later, much_later;
	} cases[] = {
		{513, 512, 680, 904},
		{700, 525, 700, 932},
		{13334, 10000, 13332, LINE_MAX_BYTES},
		{LINE_MAX_BYTES, 11250, LINE_MAX_BYTES, LINE_MAX_BYTES},
	};
	struct credentials_settings s = settings();

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		expect_longest_path(LINE_MAX_BYTES);
		get_token(cases[i].refused - PATH_OWN);
		loop_pass(TEN_MINUTES);
		assert_true(credentials_was_refused(credentials, 414));
		expect_longest_path(cases[i].most);
		loop_pass(TEN_MINUTES - 1);
		expect_longest_path(cases[i].most);
		loop_pass(1);
		expect_longest_path(cases[i].later);
		loop_pass(TEN_MINUTES);
		expect_longest_path(cases[i].much_later);
		remake(&s);
	}
}

/* Shorter each time, and not for ever. */
static void a_service_that_finds_every_line_too_long(void **state)
{
	unsigned refused = 0, asked = 0;

	(void)state;
	wanted = 1 << 20;
	for (; asked < 100; asked++) {
		credentials_ask(credentials);
		if (!request)
			break;
		mint(200 + request->keys_n * 2);
		if (told.verdict == CREDENTIALS_READY && !credentials_was_refused(credentials, 431))
			break;
		refused += told.verdict == CREDENTIALS_READY;
		told_n = 0;
	}
	assert_in_range(refused, 5, 30);
	assert_in_range(asked, 5, 60);
	loop_turn();
	told_n = 0;
}

static void in_time_longer_ones_are_tried_again(void **state)
{
	size_t shorter;

	(void)state;
	wanted = 1000;
	credentials_ask(credentials);
	loop_pass(TEN_MINUTES);
	refuse(413, -1);
	expect(CREDENTIALS_TOO_LONG);
	loop_pass(TEN_MINUTES - 1);
	credentials_ask(credentials);
	shorter = allowed;
	mint(100);
	expect(CREDENTIALS_READY);
	assert_int_equal(shorter, 500);
	loop_pass(1);
	credentials_ask(credentials);
	assert_in_range(allowed, shorter * 5 / 4, shorter * 3 / 2);
	mint(100);
	expect(CREDENTIALS_READY);
	size_t longer = allowed;
	get_token(100);
	assert_int_equal(allowed, longer);
	for (int i = 0; i < 60; i++) {
		loop_pass(TEN_MINUTES);
		get_token(100);
	}
	assert_int_equal(allowed, 8 << 20); /* and no more than at first */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(a_list_goes_out_under_both_names),
		CASE(or_under_one),
		CASE(without_a_key_a_token_is_asked_for_nothing),
		CASE(nothing_is_wanted),
		CASE(it_is_called_off),
		CASE(it_ends_while_a_token_is_asked_for),
		CASE(verdicts),
		CASE(a_token_is_in_force_once_it_is_accepted),
		CASE(a_newer_one_takes_the_place_of_one_that_nobody_has_accepted),
		CASE(one_that_failed_leaves_the_former),
		CASE(the_key_is_encoded),
		CASE(a_token_is_as_old_as_its_request),
		CASE(a_token_lives_as_long_as_its_answer_says),
		CASE(renewals_are_counted),
		CASE(the_first_guess_leaves_room_for_the_token),
		CASE(a_longer_access_pattern_leaves_less_room),
		CASE(it_learns_how_tokens_grow),
		CASE(a_short_list_says_little),
		CASE(tokens_that_do_not_grow_allow_long_lists),
		CASE(tokens_that_are_always_too_long),
		CASE(a_short_list_whose_token_is_too_long),
		CASE(a_token_is_encoded_before_it_is_too_long),
		CASE(a_list_that_the_service_finds_too_large),
		CASE(a_small_list_that_the_service_finds_too_large),
		CASE(upgrades_that_are_refused_for_their_length),
		CASE(or_for_their_headers),
		CASE(upgrades_that_are_refused_for_something_else),
		CASE(how_long_a_path_may_be),
		CASE(a_service_that_finds_every_line_too_long),
		CASE(in_time_longer_ones_are_tried_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
