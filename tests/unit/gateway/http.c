/* The conversation on one connection: responses in their order, keys, delays, streams, and the
 * hand-over of an upgrade; with a core and a host of the test's own. */
#include "../test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "gateway/http.h"

static struct {
	struct speech *speech;
	struct peer peer;
	struct stats stats;
	struct http_settings settings;
	bool full, ready;
	int64_t now;
	char lines[2048]; /* that the core got */
	char keys[200];   /* whose the peer became */
	struct speech *next;
	int refuses;  /* the status of the next upgrade by token */
	bool revoked; /* no key counts any more */
} w;

static struct span bytes_of(const char *text)
{
	return (struct span){text, strlen(text)};
}

static void host_line(void *owner, struct span line, int64_t now)
{
	size_t n = strlen(w.lines);

	(void)owner;
	assert_int_equal(now, w.now);
	snprintf(w.lines + n, sizeof(w.lines) - n, "%.*s\n", (int)line.n, line.p);
}

static void host_too_long(void *owner, struct span prefix)
{
	(void)owner, (void)prefix;
	fail();
}

static bool host_may_read(void *owner)
{
	(void)owner;
	return !w.full;
}

static const char *const names[] = {"key-one", "key-two"};

static bool host_knows(void *owner, const struct local_key *key)
{
	(void)owner;
	for (size_t i = 0; i < COUNT(names) && !w.revoked; i++) {
		struct local_key one = local_key_of(bytes_of(names[i]));
		if (local_key_same(&one, key))
			return true;
	}
	return false;
}

static const char *host_admit(void *owner)
{
	(void)owner;
	for (size_t i = 0; i < COUNT(names); i++) {
		struct local_key one = local_key_of(bytes_of(names[i]));
		if (local_key_same(&one, &w.speech->key))
			strcat(w.keys, i ? "2" : "1");
	}
	return NULL;
}

static const struct speech_host host = {
	.line = host_line,
	.too_long = host_too_long,
	.may_read = host_may_read,
	.knows = host_knows,
	.admit = host_admit,
};

static bool asks_ready(void *owner)
{
	(void)owner;
	return w.ready;
}

/* ---- the other speech that an upgrade leads to ---- */

static void next_free(struct speech *s)
{
	free(s);
}

static const struct speech_ops next_ops = {.free = next_free, .name = "next"};

static int asks_admit(void *owner, struct peer *peer, struct speech *next, const char **why)
{
	(void)owner;
	assert_ptr_equal(peer, &w.peer);
	assert_ptr_equal(next, w.next);
	assert_null(w.speech->who);
	strcat(w.keys, "T");
	*why = "no";
	return w.refuses;
}

static const struct peer_identity holder = {.uid = 7};

static void asks_upgrade(void *owner, const struct http_request *r, struct http_offer *offer)
{
	struct speech *next = mem_zalloc(sizeof(*next));

	(void)owner;
	if (memmem(r->query.p, r->query.n, "bad", 3)) {
		free(next);
		*offer = (struct http_offer){.status = 403, .error = "a bad token"};
		return;
	}
	next->ops = &next_ops;
	next->who = &holder;
	offer->next = w.next = next;
	offer->status = 101;
	offer->admit = asks_admit;
	buf_addf(&offer->headers, "Sec-WebSocket-Accept: x\r\n");
	if (memmem(r->query.p, r->query.n, "subscribe", 9))
		buf_addf(&offer->subscribe, "{\"op\":\"subscribe\"}");
}

static int64_t wall_ms(void)
{
	return 784111777000;
}

static const struct http_ops http_ops = {.ready = asks_ready, .upgrade = asks_upgrade};

/* ---- */

static void begin(bool tcp)
{
	memset(&w, 0, sizeof(w));
	w.now = 1000;
	w.settings = (struct http_settings){
		.max_line = 1000,
		.max_pipeline = 4,
		.ops = &http_ops,
		.wall_ms = wall_ms,
		.stats = &w.stats,
	};
	w.speech = http_new(&w.settings, tcp, w.now);
	w.speech->host = &host;
	w.speech->peer = &w.peer;
}

static void end(void)
{
	speech_free(w.speech);
	outq_fini(&w.peer.out);
}

static bool feed(const char *text)
{
	struct span copy = copy_of(bytes_of(text));
	bool more = w.speech->ops->feed(w.speech, copy, w.now);

	free_copy(copy);
	w.speech->ops->fill(w.speech, w.now);
	return more;
}

/* The core says this line. */
static void say(const char *line)
{
	buf_add(&w.peer.out.own, line, strlen(line));
	w.speech->ops->fill(w.speech, w.now);
}

/* What is there to be written, and out of the way. */
static const char *out(void)
{
	static char text[8192];
	size_t n = 0;
	struct iovec iov;

	while (outq_iov(&w.speech->out, &iov, 1)) {
		memcpy(text + n, iov.iov_base, iov.iov_len);
		n += iov.iov_len;
		outq_take(&w.speech->out, iov.iov_len);
	}
	text[n] = '\0';
	return text;
}

/* Only the statuses of the responses that are there. */
static const char *statuses(void)
{
	static char list[200];
	const char *text = out(), *at = text;

	list[0] = '\0';
	while ((at = strstr(at, "HTTP/1.1 "))) {
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%.3s ", at + 9);
		at += 9;
	}
	return list;
}

static void wake(int64_t now)
{
	w.now = now;
	w.speech->ops->wake(w.speech, now);
	w.speech->ops->fill(w.speech, now);
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\n"
#define KEY1 "x-api-key: key-one\r\n\r\n"
#define KEY2 "x-api-key: key-two\r\n\r\n"
#define UPGRADE "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

static void responses_leave_in_order(void **state)
{
	(void)state;
	begin(false);
	assert_true(feed(GET("/record/a") "\r\n" GET("/none") "\r\n" GET("/record/b") "\r\n"));
	assert_string_equal(w.lines,
			    "{\"op\":\"get\",\"key\":\"a\"}\n{\"op\":\"get\",\"key\":\"b\"}\n");
	assert_string_equal(out(), "");
	say("{\"code\":200,\"key\":\"a\",\"value\":\"1\"}\n");
	assert_string_equal(statuses(), "200 404 ");
	say("{\"code\":404,\"error\":\"Record not found\"}\n");
	assert_string_equal(out(), "HTTP/1.1 404 Not Found\r\n"
				   "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
				   "Content-Type: application/json\r\nContent-Length: "
				   "28\r\nCache-Control: no-store\r\n"
				   "x-hpkvd-cache: miss\r\n\r\n"
				   "{\"error\":\"Record not found\"}");
	end();
}

static void what_nobody_has_asked_for_is_no_answer(void **state)
{
	(void)state;
	begin(false);
	feed(GET("/record/a") "\r\n");
	say("{\"type\":\"connection\",\"state\":\"connected\",\"timestamp\":1}\n");
	assert_string_equal(statuses(), "");
	say("{\"code\":200,\"key\":\"a\",\"value\":\"1\"}\n");
	assert_string_equal(statuses(), "200 ");
	end();
}

static void no_more_than_may_be_are_taken(void **state)
{
	(void)state;
	begin(false);
	assert_false(feed(GET("/record/1") "\r\n" GET("/record/2") "\r\n" GET(
		"/record/3") "\r\n" GET("/record/4") "\r\n" GET("/record/5") "\r\n"));
	assert_null(strstr(w.lines, "5"));
	assert_false(w.speech->ops->resume(w.speech, w.now));
	say("{\"code\":200}\n");
	w.full = true;
	assert_false(w.speech->ops->resume(w.speech, w.now)); /* one is taken, and no further */
	assert_non_null(strstr(w.lines, "5"));
	end();
}

static void a_wrong_key_is_told_late(void **state)
{
	(void)state;
	begin(true);
	assert_false(feed(GET("/record/a") "x-api-key: wrong\r\n\r\n" GET("/record/b") KEY1));
	assert_string_equal(statuses(), "");
	assert_int_equal(w.speech->wake_at, w.now + HTTP_DELAY_MS);
	wake(w.now + HTTP_DELAY_MS);
	assert_string_equal(statuses(), "401 ");
	assert_string_equal(w.lines, "");
	assert_true(w.speech->ops->resume(w.speech, w.now));
	assert_string_equal(w.lines, "{\"op\":\"get\",\"key\":\"b\"}\n");
	assert_string_equal(w.keys, "1");
	end();
}

static void another_key_waits_until_nothing_is_unanswered(void **state)
{
	(void)state;
	begin(true);
	feed(GET("/record/a") KEY1);
	assert_false(feed(GET("/record/b") KEY2 GET("/record/c") KEY2));
	assert_string_equal(w.lines, "{\"op\":\"get\",\"key\":\"a\"}\n");
	assert_string_equal(w.keys, "1");
	say("{\"code\":200}\n");
	assert_string_equal(w.keys, "12");
	assert_non_null(strstr(w.lines, "\"b\""));
	assert_null(strstr(w.lines, "\"c\""));
	say("{\"code\":200}\n");
	assert_true(w.speech->ops->resume(w.speech, w.now));
	assert_non_null(strstr(w.lines, "\"c\""));
	assert_string_equal(w.keys, "12");
	end();
}

static void who_asks_nothing_in_time_goes(void **state)
{
	(void)state;
	begin(true);
	assert_int_equal(w.speech->wake_at, w.now + HTTP_HEAD_MS);
	wake(w.now + HTTP_HEAD_MS);
	assert_true(w.speech->over);
	assert_string_equal(out(), "");
	end();
	begin(false);
	assert_int_equal(w.speech->wake_at, 0);
	feed("GET /");
	int64_t until = w.now + HTTP_HEAD_MS;
	assert_int_equal(w.speech->wake_at, until);
	w.now += 5000;
	feed("x");
	assert_int_equal(w.speech->wake_at, until); /* each byte does not begin it anew */
	wake(until);
	assert_string_equal(statuses(), "408 ");
	assert_true(w.speech->over);
	end();
}

static void each_head_has_its_time(void **state)
{
	(void)state;
	begin(false);
	feed("GET");
	/* There is never a moment without a part of a head. */
	for (int i = 0; i < 5; i++) {
		w.now += HTTP_HEAD_MS / 2;
		feed(" /hpkvd/ready HTTP/1.1\r\nHost: localhost\r\n\r\nGET");
		assert_string_equal(statuses(), "503 ");
		assert_int_equal(w.speech->wake_at, w.now + HTTP_HEAD_MS);
	}
	end();
	begin(true);
	w.now += HTTP_HEAD_MS - 1;
	feed("GET");
	assert_int_equal(w.speech->wake_at, w.now + HTTP_HEAD_MS);
	end();
}

static void a_client_without_a_key_is_not_waited_for(void **state)
{
	(void)state;
	begin(true);
	feed(GET("/hpkvd/ready") "\r\n");
	assert_string_equal(statuses(), "503 ");
	assert_int_equal(w.speech->wake_at, w.now + HTTP_HEAD_MS);
	w.now += HTTP_HEAD_MS - 1;
	feed(GET("/record/a") "x-api-key: wrong\r\n\r\n");
	assert_int_equal(w.speech->wake_at, w.now + HTTP_DELAY_MS);
	wake(w.now + HTTP_DELAY_MS);
	assert_string_equal(statuses(), "401 ");
	wake(w.now + HTTP_HEAD_MS);
	assert_true(w.speech->over);
	end();
	begin(true);
	feed(GET("/none") KEY1);
	assert_string_equal(statuses(), "404 ");
	assert_int_equal(w.speech->wake_at, 0);
	end();
}

#define POST(headers) "POST /record HTTP/1.1\r\nHost: localhost\r\n" headers "\r\n"

static void a_body_has_its_time(void **state)
{
	static const char *const heads[] = {
		POST("Content-Length: 100\r\n"),
		POST("Transfer-Encoding: chunked\r\n"),
		POST("Transfer-Encoding: chunked\r\n") "3\r\n",
		POST("Transfer-Encoding: chunked\r\n") "0\r\n",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(heads); i++) {
		begin(false);
		feed(heads[i]);
		int64_t until = w.now + HTTP_BODY_MS;
		assert_int_equal(w.speech->wake_at, until);
		w.now += HTTP_BODY_MS - 1;
		feed("1");
		assert_int_equal(w.speech->wake_at, until);
		wake(until);
		assert_string_equal(statuses(), "408 ");
		assert_true(w.speech->over);
		assert_string_equal(w.lines, "");
		end();
	}
}

static void a_body_without_leave_is_waited_for(void **state)
{
	(void)state;
	begin(false);
	feed(GET("/record/a") "\r\n" POST("Expect: 100-continue\r\nContent-Length: 2\r\n"));
	assert_int_equal(w.speech->wake_at, 0);
	w.now += 2 * HTTP_BODY_MS;
	say("{\"code\":200}\n");
	assert_string_equal(statuses(), "200 100 ");
	assert_int_equal(w.speech->wake_at, w.now + HTTP_BODY_MS);
	feed("{}");
	assert_int_equal(w.speech->wake_at, 0);
	end();
}

static void a_key_that_is_revoked_meanwhile_is_refused(void **state)
{
	(void)state;
	begin(true);
	feed(GET("/record/a") KEY1 GET("/record/b") KEY2);
	w.revoked = true;
	say("{\"code\":200}\n");
	assert_string_equal(statuses(), "200 ");
	wake(w.now + HTTP_DELAY_MS);
	assert_string_equal(statuses(), "401 ");
	assert_string_equal(w.keys, "1");
	assert_null(strstr(w.lines, "\"b\""));
	end();
}

static void a_holder_is_whom_the_connection_belongs_to(void **state)
{
	static const int statuses_of[] = {403, 503};

	(void)state;
	begin(true);
	feed(GET("/ws?token=x&subscribe") UPGRADE);
	assert_ptr_equal(w.speech->who, &holder); /* while it waits */
	say("{\"code\":503}\n");
	assert_null(w.speech->who);
	end();
	for (size_t i = 0; i < COUNT(statuses_of); i++) {
		char want[8];
		begin(true);
		w.refuses = statuses_of[i];
		feed(GET("/ws?token=x&subscribe") UPGRADE);
		snprintf(want, sizeof(want), "%d ", statuses_of[i]);
		assert_string_equal(statuses(), want);
		assert_null(w.speech->who);
		assert_string_equal(w.lines, "");
		assert_true(w.speech->over);
		end();
	}
}

static void a_stream_begins_with_its_answer(void **state)
{
	(void)state;
	begin(false);
	assert_false(feed(GET("/hpkvd/watch?key=a&pattern=b*&initial=true") "\r\n"));
	assert_string_equal(w.lines, "{\"op\":\"subscribe\",\"initial\":true,\"keys\":[\"a\"],"
				     "\"patterns\":[\"b*\"]}\n");
	w.peer.topics.n = 2;
	say("{\"code\":200}\n{\"type\":\"notification\",\"key\":\"a\",\"value\":\"1\"}\n");
	const char *text = out();
	assert_non_null(strstr(text, " GMT\r\nContent-Type: text/event-stream\r\n"));
	assert_non_null(strstr(text,
			       "\r\n\r\nevent: notification\ndata: {\"type\":\"notification\","
			       "\"key\":\"a\",\"value\":\"1\"}\n\n"));
	assert_int_equal(w.speech->wake_at, w.now + HTTP_COMMENT_MS);
	wake(w.now + HTTP_COMMENT_MS);
	assert_string_equal(out(), ":\n\n");
	assert_false(w.speech->over);
	w.peer.topics.n = 0; /* the rules have ended them */
	say("{\"type\":\"unsubscribed\",\"key\":\"a\"}\n");
	assert_string_equal(
		out(), "event: unsubscribed\ndata: {\"type\":\"unsubscribed\",\"key\":\"a\"}\n\n");
	assert_true(w.speech->over);
	end();
}

static void a_stream_leaves_much_in_the_queue(void **state)
{
	struct buf many = {0};

	(void)state;
	begin(false);
	feed(GET("/hpkvd/watch?key=a") "\r\n");
	w.peer.topics.n = 1;
	say("{\"code\":200}\n");
	for (int i = 0; i < 5000; i++)
		buf_addf(&many, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"%d\"}\n", i);
	buf_add(&w.peer.out.own, buf_span(&many).p, buf_len(&many));
	w.speech->ops->fill(w.speech, w.now);
	assert_in_range(outq_len(&w.speech->out), SPEECH_FILL_MAX, SPEECH_FILL_MAX + 200);
	assert_true(outq_len(&w.peer.out) > 100000);
	buf_release(&many);
	outq_fini(&w.speech->out);
	end();
}

static void an_upgrade_waits_and_hands_over(void **state)
{
	(void)state;
	begin(false);
	assert_false(feed(GET("/record/a") "\r\n" GET("/ws?subscribe") UPGRADE "frames"));
	assert_null(w.speech->next);
	assert_string_equal(w.keys, "");
	say("{\"code\":200}\n");
	assert_string_equal(w.keys, "T");
	assert_non_null(strstr(w.lines, "{\"op\":\"subscribe\"}\n"));
	assert_string_equal(statuses(), "200 ");
	say("{\"code\":200}\n{\"type\":\"notification\"}\n");
	assert_string_equal(out(), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
				   "Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n");
	assert_ptr_equal(w.speech->next, w.next);
	assert_span(buf_span(&w.speech->rest), "frames");
	assert_int_equal(outq_len(&w.peer.out), strlen("{\"type\":\"notification\"}\n"));
	end();
}

static void an_upgrade_that_fails_ends_the_connection(void **state)
{
	(void)state;
	begin(false);
	feed(GET("/ws?subscribe") UPGRADE);
	say("{\"code\":503,\"error\":\"x\",\"reason\":\"upstream_down\",\"executed\":\"no\","
	    "\"retryAfterMs\":1500}\n");
	const char *text = out();
	assert_non_null(strstr(text, "HTTP/1.1 503 "));
	assert_non_null(strstr(text, "Retry-After: 2\r\n"));
	assert_true(w.speech->over);
	end();
	begin(false);
	feed(GET("/ws?bad") UPGRADE);
	assert_string_equal(statuses(), "");
	wake(w.now + HTTP_DELAY_MS);
	assert_string_equal(statuses(), "403 ");
	assert_true(w.speech->over);
	end();
	begin(false);
	feed(GET("/ws") "\r\n");
	assert_string_equal(statuses(), "426 ");
	assert_false(w.speech->over);
	end();
}

static void the_end_of_input_lets_answers_leave(void **state)
{
	(void)state;
	begin(false);
	feed(GET("/record/a") "\r\nGET /rec");
	w.speech->ops->finish(w.speech, w.now);
	w.speech->ops->fill(w.speech, w.now);
	assert_true(w.speech->ops->is_busy(w.speech));
	assert_false(w.speech->over);
	say("{\"code\":200}\n");
	assert_string_equal(statuses(), "200 ");
	assert_true(w.speech->over);
	end();
}

int main(void)
{
	const struct CMUnitTest cases[] = {
		cmocka_unit_test(responses_leave_in_order),
		cmocka_unit_test(what_nobody_has_asked_for_is_no_answer),
		cmocka_unit_test(no_more_than_may_be_are_taken),
		cmocka_unit_test(a_wrong_key_is_told_late),
		cmocka_unit_test(another_key_waits_until_nothing_is_unanswered),
		cmocka_unit_test(who_asks_nothing_in_time_goes),
		cmocka_unit_test(each_head_has_its_time),
		cmocka_unit_test(a_client_without_a_key_is_not_waited_for),
		cmocka_unit_test(a_body_has_its_time),
		cmocka_unit_test(a_body_without_leave_is_waited_for),
		cmocka_unit_test(a_key_that_is_revoked_meanwhile_is_refused),
		cmocka_unit_test(a_holder_is_whom_the_connection_belongs_to),
		cmocka_unit_test(a_stream_begins_with_its_answer),
		cmocka_unit_test(a_stream_leaves_much_in_the_queue),
		cmocka_unit_test(an_upgrade_waits_and_hands_over),
		cmocka_unit_test(an_upgrade_that_fails_ends_the_connection),
		cmocka_unit_test(the_end_of_input_lets_answers_leave),
	};

	return cmocka_run_group_tests(cases, NULL, NULL);
}
