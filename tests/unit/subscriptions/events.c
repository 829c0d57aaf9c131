/* What clients are sent unasked (events.h), and what tells one notification from another
 * (notification.h). */
#include "subscriptions/events.h"

#include <stdlib.h>

#include "codec/notification.h"
#include "codec/json.h"
#include "../test.h"

enum { SEED = 42 };

static struct wire_frame notification(const char *text)
{
	struct wire_frame frame;

	wire_parse(span_of(text), &frame);
	if (frame.kind != WIRE_NOTIFICATION)
		fail_msg("%s: %s", text, frame.fault);
	return frame;
}

/* A line is as long as was said, written to exactly so much memory. */
static void check_change(const char *text, const char *want)
{
	struct wire_frame frame = notification(text);
	char *out = malloc(events_change_max(&frame));

	assert_non_null(out);
	assert_span(((struct span){out, events_write_change(&frame, out)}), want);
	free(out);
}

static void a_notification_stays_as_it_is_on_one_line(void **state)
{
	(void)state;
	check_change("{\"type\":\"notification\",\"key\":\"a\",\"value\":1.50}",
		     "{\"type\":\"notification\",\"key\":\"a\",\"value\":1.50}\n");
	check_change("{ \"key\":\"\\u0061\\n\",\r\n\t\"type\" : \"notification\"\n}\n",
		     "{ \"key\":\"\\u0061\\n\",  \t\"type\" : \"notification\" } \n");
}

static void check(struct buf *b, const char *want)
{
	assert_span(buf_span(b), want);
	buf_release(b);
}

static void skipped_is_the_last_member(void **state)
{
	struct buf b = {0};

	(void)state;
	events_add_skipped(&b, SPAN("{\"value\":\"}\"}\n"), 1);
	check(&b, "{\"value\":\"}\",\"skipped\":1}\n");
	events_add_skipped(&b, SPAN("{\"value\":{}} \t \n"), UINT64_MAX);
	check(&b, "{\"value\":{},\"skipped\":18446744073709551615}\n");
}

static void a_value_says_why_it_is_told(void **state)
{
	struct buf b = {0};

	(void)state;
	events_add_value(&b, SPAN("a\"\0\n"), SPAN("\"v\\u0000\""), 17, EVENTS_INITIAL);
	check(&b, "{\"type\":\"notification\",\"key\":\"a\\\"\\u0000\\n\",\"value\":\"v\\u0000\","
		  "\"timestamp\":17,\"initial\":true}\n");
	events_add_value(&b, SPAN(""), (struct span){0}, 0, EVENTS_RESYNC);
	check(&b, "{\"type\":\"notification\",\"key\":\"\",\"value\":null,\"timestamp\":0,"
		  "\"resync\":true}\n");
}

static void gaps_and_connections_are_lines_of_their_own(void **state)
{
	struct buf b = {0};

	(void)state;
	events_add_pattern_gap(&b, SPAN("a\\*"), 1, 9007199254740993);
	check(&b, "{\"type\":\"gap\",\"pattern\":\"a\\\\*\",\"since\":1,"
		  "\"until\":9007199254740993}\n");
	events_add_key_gap(&b, SPAN("\x01"));
	check(&b, "{\"type\":\"gap\",\"key\":\"\\u0001\"}\n");
	events_add_connection(&b, "connected", NULL, 5);
	events_add_connection(&b, "disconnected", NULL, 6); /* behind what is there */
	check(&b, "{\"type\":\"connection\",\"state\":\"connected\",\"timestamp\":5}\n"
		  "{\"type\":\"connection\",\"state\":\"disconnected\",\"timestamp\":6}\n");
	events_add_connection(&b, "disconnected", "shutting_down", 6);
	check(&b,
	      "{\"type\":\"connection\",\"state\":\"disconnected\",\"reason\":\"shutting_down\","
	      "\"timestamp\":6}\n");
	events_add_unsubscribed(&b, false, SPAN("a\""), 7);
	check(&b, "{\"type\":\"unsubscribed\",\"key\":\"a\\\"\",\"reason\":\"forbidden\","
		  "\"timestamp\":7}\n");
	events_add_unsubscribed(&b, true, SPAN("*"), 8);
	check(&b, "{\"type\":\"unsubscribed\",\"pattern\":\"*\",\"reason\":\"forbidden\","
		  "\"timestamp\":8}\n");
}

/* ---- changes ---- */

static struct notification change_in(const char *text)
{
	struct wire_frame frame = notification(text);

	return notification_of(&frame, SEED);
}

static void a_change_knows_when_it_was_if_that_is_a_whole_number(void **state)
{
	static const struct {
		const char *text;
		int64_t timestamp;
	} rows[] = {
		{"{\"type\":\"notification\",\"key\":\"a\",\"timestamp\":1700000000000}",
		 1700000000000},
		{"{\"type\":\"notification\",\"key\":\"a\",\"timestamp\":1e3}", 1000},
		{"{\"type\":\"notification\",\"key\":\"a\",\"timestamp\":1.5}", 0},
		{"{\"type\":\"notification\",\"key\":\"a\",\"timestamp\":-1}", 0},
		{"{\"type\":\"notification\",\"key\":\"a\",\"timestamp\":1e99}", 0},
		{"{\"type\":\"notification\",\"key\":\"a\",\"timestamp\":\"5\"}", 0},
		{"{\"type\":\"notification\",\"key\":\"a\"}", 0},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct notification c = change_in(rows[i].text);
		if (c.timestamp != rows[i].timestamp)
			fail_msg("%lld for %s", (long long)c.timestamp, rows[i].text);
		assert_span(c.text, rows[i].text);
	}
}

/* Values in groups that mean the same; each group means something else than the others. */
static void values_that_mean_the_same_are_the_same(void **state)
{
	static const struct {
		int group;
		const char *text;
	} rows[] = {
		{0, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"x\"}"},
		{0, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"\\u0078\"}"},
		{1, "{\"type\":\"notification\",\"key\":\"a\",\"value\":17}"},
		{1, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"17\"}"},
		{2, "{\"type\":\"notification\",\"key\":\"a\",\"value\":null}"},
		{2, "{\"type\":\"notification\",\"key\":\"a\"}"},
		{3, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"\"}"},
		{4, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"null\"}"},
		{5, "{\"type\":\"notification\",\"key\":\"a\",\"value\":{\"b\":1}}"},
		{5, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"{\\\"b\\\":1}\"}"},
		{6, "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"x\\u0000\"}"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct notification a = change_in(rows[i].text);
		assert_true(a.value_hash != 0 && a.key_hash != 0);
		for (size_t j = 0; j < COUNT(rows); j++) {
			struct notification b = change_in(rows[j].text);
			bool same = rows[i].group == rows[j].group;
			if ((a.value_hash == b.value_hash) != same)
				fail_msg("%s and %s", rows[i].text, rows[j].text);
		}
	}
}

static void keys_are_hashed_as_what_they_mean_under_the_seed(void **state)
{
	static const char plain[] = "{\"type\":\"notification\",\"key\":\"a\",\"value\":\"a\"}";
	struct wire_frame frame = notification(plain);
	struct notification a = change_in(plain),
			    b = change_in("{\"type\":\"notification\",\"key\":\"\\u0061\"}"),
			    c = change_in("{\"type\":\"notification\",\"key\":\"b\"}"),
			    other = notification_of(&frame, SEED + 1);

	(void)state;
	assert_true(a.key_hash == b.key_hash);
	assert_true(a.key_hash != c.key_hash);
	assert_true(a.key_hash == json_bytes_hash(SPAN("a"), SEED));
	assert_true(a.key_hash != other.key_hash);
	assert_true(a.value_hash != other.value_hash);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_notification_stays_as_it_is_on_one_line),
		cmocka_unit_test(skipped_is_the_last_member),
		cmocka_unit_test(a_value_says_why_it_is_told),
		cmocka_unit_test(gaps_and_connections_are_lines_of_their_own),
		cmocka_unit_test(a_change_knows_when_it_was_if_that_is_a_whole_number),
		cmocka_unit_test(values_that_mean_the_same_are_the_same),
		cmocka_unit_test(keys_are_hashed_as_what_they_mean_under_the_seed),
	};

	return cmocka_run_group_tests_name("notice", tests, NULL, NULL);
}
