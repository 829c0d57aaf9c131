/* Mirrors by themselves: their bounds, how pages make them whole, and local ranges. */
#include "../test.h"

#include <stdio.h>

#include "cache/mirror.h"
#include "codec/notification.h"

enum { MAX_AGE_MS = 10000 };

static struct entries es;
static struct truth t;
static struct mirror m;
static struct mirror_limits limits;
static uint64_t asked; /* the tick of the page that is on its way */

static uint8_t origin_of(void *owner, struct span key)
{
	(void)owner;
	return mirror_has(&m, key) ? ORIGIN_MIRROR : ORIGIN_KEYS;
}

static void begin(struct span prefix)
{
	entries_init(&es, origin_of, NULL);
	truth_init(&t, 1);
	t.live = true;
	limits = (struct mirror_limits){.memory = 1 << 20, .max_age_ms = MAX_AGE_MS};
	mirror_init(&m, &es, &t, &limits, ORIGIN_MIRROR, prefix);
}

static void end(void)
{
	mirror_fini(&m);
	entries_fini(&es);
}

static int set_up(void **state)
{
	(void)state;
	begin(SPAN("m:"));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	end();
	return 0;
}

static struct entry *find(const char *key)
{
	return entries_find(&es, span_of(key), notification_bytes_hash(span_of(key), 1));
}

static struct entry *make(const char *key)
{
	return entries_make(&es, span_of(key), notification_bytes_hash(span_of(key), 1),
			    ORIGIN_MIRROR);
}

/* The next page is asked for ... */
static void ask(int64_t now)
{
	static uint64_t page;

	assert_true(mirror_wants_page(&m, now));
	mirror_asked(&m, ++page, now);
	assert_int_equal(page, m.page);
	asked = truth_now(&t);
	assert_false(mirror_wants_page(&m, now));
}

/* ... and answered. */
static const char *answer(const char *text, int64_t now)
{
	struct wire_frame frame;
	struct span copy = copy_of(span_of(text));

	wire_parse(copy, &frame);
	assert_int_equal(WIRE_ANSWER, frame.kind);
	const char *why = mirror_page(&m, &frame, asked, now);
	free_copy(copy);
	return why;
}

#define ANSWER(code) "{\"code\":" #code ",\"error\":\"no\",\"messageId\":1}"
#define PAGE(records, truncated)                                                                   \
	"{\"code\":200,\"records\":[" records "],\"truncated\":" #truncated ",\"messageId\":1}"
#define RECORD(key, value) "{\"key\":\"" key "\",\"value\":\"" value "\"}"

static void load(int64_t now)
{
	mirror_start(&m, now);
	ask(now);
	assert_null(answer(PAGE(RECORD("m:1", "a") "," RECORD("m:3", "c"), false), now));
	assert_int_equal(MIRROR_WHOLE, m.state);
}

static const char *range(const char *from, const char *to, size_t limit, int64_t now)
{
	static struct buf out;
	bool can;

	buf_take(&out, buf_len(&out));
	can = mirror_range(&m, span_of(from), span_of(to), limit, now, &out);
	assert_true(can || !buf_len(&out));
	buf_add(&out, "", 1);
	const char *text = can ? buf_span(&out).p : NULL;
	static char kept[600];
	snprintf(kept, sizeof(kept), "%s", text ? text : "");
	buf_release(&out);
	return can ? kept : NULL;
}

/* ---- bounds ---- */

static void the_bounds_of(const char *prefix, const char *first, const char *last)
{
	begin(prefix[0] ? span_of(prefix) : (struct span){"*", 0});
	assert_true(span_equal(buf_span(&m.last), span_of(last)));
	if (first)
		assert_true(span_equal(buf_span(&m.first), span_of(first)));
	else
		assert_true(span_equal(buf_span(&m.first), (struct span){"", 1}));
	assert_int_equal(!prefix[0], mirror_has(&m, SPAN("a")));
	end();
}

static void its_end_is_behind_all_keys_with_the_prefix(void **state)
{
	(void)state;
	the_bounds_of("m:", "m:", "m;");
	the_bounds_of("m\x7f", "m\x7f", "m\xc2\x80");
	the_bounds_of("m\xdf\xbf", "m\xdf\xbf", "m\xe0\xa0\x80");
	the_bounds_of("m\xed\x9f\xbf", "m\xed\x9f\xbf", "m\xee\x80\x80"); /* no surrogates */
	the_bounds_of("m\xef\xbf\xbf", "m\xef\xbf\xbf", "m\xf0\x90\x80\x80");
	the_bounds_of("m\xf4\x8f\xbf\xbf", "m\xf4\x8f\xbf\xbf", "n"); /* the greatest character */
	the_bounds_of("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf");
	the_bounds_of("", NULL, "\xf4\x8f\xbf\xbf");
}

static void keys_with_the_prefix_belong_to_it(void **state)
{
	static const char *const in[] = {"m:", "m:x", "m:\xf4\x8f\xbf\xbf"}, *const out[] = {
										     "m", "m;",
										     "n", "l",
										     "",  "M:"};

	(void)state;
	for (size_t i = 0; i < COUNT(in); i++)
		assert_true(mirror_has(&m, span_of(in[i])));
	for (size_t i = 0; i < COUNT(out); i++)
		assert_false(mirror_has(&m, span_of(out[i])));
}

static const char GREATEST[] = "\xf4\x8f\xbf\xbf";

/* The last key that the service can have is one that no other range ends at. */
static void the_greatest_character_is_an_end_that_belongs_to_it(void **state)
{
	struct entry *e;

	(void)state;
	begin(SPAN("\xf4\x8f\xbf\xbf"));
	assert_true(mirror_has(&m, span_of(GREATEST)));
	assert_false(mirror_has(&m, SPAN("\xf4\x8f\xbf\xbf.")));
	mirror_start(&m, 0);
	e = make(GREATEST);
	truth_doubt(&t, &es, e);
	mirror_unknown(&m, e);
	ask(0);
	assert_null(answer(PAGE("", false), 0));
	assert_null(find(GREATEST));
	mirror_answered(&m, span_of(GREATEST), span_of(GREATEST), 3);
	assert_int_equal(3, m.answered_at);
	end();
}

/* ---- pages ---- */

static void the_last_page_makes_it_whole(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	assert_true(span_equal(buf_span(&m.from), SPAN("m:")));
	ask(0);
	assert_null(answer(PAGE(RECORD("m:1", "a"), true), 0));
	assert_int_equal(MIRROR_LOADING, m.state);
	assert_false(mirror_is_sure(&m, 0));
	assert_true(span_equal(buf_span(&m.from), (struct span){"m:1", 4}));
	ask(0); /* at once */
	assert_null(answer(PAGE("", false), 0));
	assert_int_equal(MIRROR_WHOLE, m.state);
	assert_true(mirror_is_sure(&m, 0));
	assert_int_equal(ENTRY_FOUND, find("m:1")->state);
	assert_false(mirror_wants_page(&m, 0));
}

static void it_is_read_again_in_half_of_max_age_and_believed_for_all_of_it(void **state)
{
	(void)state;
	load(0);
	assert_false(mirror_wants_page(&m, MAX_AGE_MS / 2 - 1));
	ask(MAX_AGE_MS / 2);
	assert_true(mirror_is_sure(&m, MAX_AGE_MS));
	assert_false(mirror_is_sure(&m, MAX_AGE_MS + 1));
	assert_null(answer(PAGE(RECORD("m:1", "a"), false), MAX_AGE_MS / 2 + 100));
	/* From the beginning of the pass on, which is older than its end. */
	assert_true(mirror_is_sure(&m, MAX_AGE_MS / 2 + MAX_AGE_MS));
	assert_false(mirror_is_sure(&m, MAX_AGE_MS / 2 + MAX_AGE_MS + 1));
	assert_int_equal(MAX_AGE_MS / 2 + 100, find("m:1")->read_at);
	/* m:3 is gone, without any word; nobody was told, but it may have been. */
	assert_int_equal(ENTRY_EMPTY, find("m:3")->state);
	assert_ptr_equal(find("m:3"), mirror_next_unknown(&m));
}

static void pages_of_a_pass_are_spread_over_it(void **state)
{
	int64_t now = 0;

	(void)state;
	mirror_start(&m, 0);
	for (int i = 0; i < 3; i++) {
		ask(0);
		assert_null(answer(i == 0   ? PAGE(RECORD("m:1", "a"), true)
				   : i == 1 ? PAGE(RECORD("m:2", "b"), true)
					    : PAGE("", false),
				   0));
	}
	now = MAX_AGE_MS / 2;
	ask(now);
	assert_null(answer(PAGE(RECORD("m:1", "a"), true), now));
	int64_t next = now + (MAX_AGE_MS / 2 - MAX_AGE_MS / 10) / 4;
	assert_false(mirror_wants_page(&m, next - 1));
	ask(next);
	assert_null(answer(PAGE(RECORD("m:2", "b"), false), next));
	assert_int_equal(now, m.confirmed); /* the first page's time, not the last one's */
	now = m.due;
	ask(now);
	assert_null(answer(PAGE(RECORD("m:1", "a"), true), now));
	next = now + (MAX_AGE_MS / 2 - MAX_AGE_MS / 10) / 3; /* the last pass had two pages */
	assert_int_equal(next, m.due);
	ask(next + 2000); /* a late one does not bring the next one sooner */
	assert_null(answer(PAGE(RECORD("m:2", "a"), true), next + 2000));
	assert_int_equal(next + 2000, m.due);
}

static void a_shorter_age_makes_pages_come_sooner(void **state)
{
	(void)state;
	load(0);
	mirror_hurry(&m, 100);
	assert_false(mirror_wants_page(&m, MAX_AGE_MS / 2 - 1)); /* it is the same */
	limits.max_age_ms = MAX_AGE_MS / 5;
	mirror_hurry(&m, 100);
	assert_false(mirror_wants_page(&m, MAX_AGE_MS / 10 - 1));
	limits.max_age_ms = MAX_AGE_MS;
	mirror_hurry(&m, 100); /* a longer one does not */
	assert_true(mirror_wants_page(&m, MAX_AGE_MS / 10));
	ask(MAX_AGE_MS / 10);
	assert_null(answer(PAGE(RECORD("m:1", "a"), true), MAX_AGE_MS / 10));
	assert_false(mirror_wants_page(&m, MAX_AGE_MS / 10 + 1000));
	limits.max_age_ms = 1000;
	mirror_hurry(&m, MAX_AGE_MS / 10 + 1000);
	assert_true(mirror_wants_page(&m, MAX_AGE_MS / 10 + 1400));
	mirror_stop(&m);
	mirror_hurry(&m, MAX_AGE_MS / 10);
	assert_false(mirror_wants_page(&m, MAX_AGE_MS));
}

static void a_page_that_may_have_missed_changes_is_asked_for_again(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	ask(0);
	truth_bar(&t);
	assert_null(answer(PAGE(RECORD("m:1", "a"), false), 0));
	assert_int_equal(MIRROR_LOADING, m.state);
	assert_null(find("m:1"));
	ask(0);
}

static void a_key_that_has_changed_meanwhile_is_not_believed(void **state)
{
	struct entry *e;

	(void)state;
	mirror_start(&m, 0);
	ask(0);
	e = make("m:1");
	truth_doubt(&t, &es, e); /* its notification */
	mirror_unknown(&m, e);
	truth_doubt(&t, &es, make("m:2")); /* that of one that the page does not have */
	assert_null(answer(PAGE(RECORD("m:1", "a"), false), 0));
	assert_int_equal(MIRROR_WHOLE, m.state);
	assert_int_equal(ENTRY_EMPTY, find("m:1")->state);
	assert_int_equal(ENTRY_EMPTY, find("m:2")->state);
	assert_null(range("m:1", "m:1", 10, 0));
	assert_ptr_equal(e, mirror_next_unknown(&m));
}

/* It is read again when that is over. */
static void a_key_that_is_being_written_does_not_wait(void **state)
{
	struct entry *e;

	(void)state;
	load(0);
	e = make("m:2");
	e->fences = 1;
	mirror_unknown(&m, e);
	assert_null(mirror_next_unknown(&m));
	e->fences = 0;
	mirror_unknown(&m, e);
	assert_ptr_equal(e, mirror_next_unknown(&m));
}

static void a_page_tells_of_keys_that_were_not_known(void **state)
{
	struct entry *e[3];
	char key[] = "m:0";

	(void)state;
	mirror_start(&m, 0);
	for (int i = 0; i < 3; i++) {
		key[2] = (char)('1' + i);
		e[i] = make(key);
		truth_doubt(&t, &es, e[i]);
		mirror_unknown(&m, e[i]);
	}
	ask(0);
	assert_null(answer(PAGE(RECORD("m:", "p") "," RECORD("m:2", "b"), true), 7));
	assert_null(find("m:1")); /* there is no such record */
	assert_string_equal("\"b\"", entry_value(e[1]).p);
	assert_true(truth_is_answered(e[1], 7, 1));
	assert_ptr_equal(e[2], mirror_next_unknown(&m)); /* behind the page */
	mirror_unlink(&m, e[2]);
	assert_null(mirror_next_unknown(&m));
	ask(7);
	e[2]->readers = 1;
	assert_null(answer(PAGE("", false), 7));
	assert_int_equal(ENTRY_MISSING, e[2]->state);
	/* Which it said, so another answer at that time is no proof. */
	assert_false(truth_tell(&t, &es, e[2], asked, 5));
	assert_int_equal(ENTRY_EMPTY, e[2]->state);
	e[2]->readers = 0;
}

static void a_page_that_contradicts_makes_a_key_unknown(void **state)
{
	(void)state;
	load(0);
	ask(m.due);
	assert_null(answer(PAGE(RECORD("m:1", "a") "," RECORD("m:3", "d"), false), m.due));
	assert_ptr_equal(find("m:3"), mirror_next_unknown(&m));
	ask(m.due);
	assert_null(answer(PAGE(RECORD("m:1", "a") "," RECORD("m:3", "d"), false), m.due));
	assert_null(mirror_next_unknown(&m)); /* the next one is believed */
	assert_int_equal(ENTRY_FOUND, find("m:3")->state);
}

static void values_are_kept_as_lines(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	ask(0);
	assert_null(answer(PAGE("{\"key\":\"m:1\",\"value\":{\"a\":\n1}}", false), 0));
	assert_string_equal("{\"code\":200,\"records\":[{\"key\":\"m:1\",\"value\":{\"a\": 1}}],"
			    "\"count\":1,\"truncated\":false",
			    range("m:", "m:\x7f", 100, 0));
}

static void unknown_keys_wait_once_and_while_it_is_active(void **state)
{
	struct entry *e;

	(void)state;
	e = make("m:1");
	mirror_unknown(&m, e);
	assert_false(e->linked); /* it was not started yet */
	mirror_start(&m, 0);
	mirror_unknown(&m, e);
	mirror_unknown(&m, e);
	mirror_unlink(&m, e);
	mirror_unlink(&m, e);
	assert_null(mirror_next_unknown(&m));
	mirror_unknown(&m, e);
	assert_ptr_equal(e, mirror_next_unknown(&m));
	mirror_stop(&m);
	assert_false(e->linked);
	mirror_start(&m, 0);
	mirror_unknown(&m, e);
	ask(0);
	mirror_give_up(&m);
	assert_false(e->linked || m.asking);
	mirror_try_again(&m);
	mirror_start(&m, 0);
	mirror_unknown(&m, e);
	e->readers = 1;
	mirror_missing(&m, e, 0);
	assert_null(mirror_next_unknown(&m));
	mirror_unknown(&m, e); /* it is known */
	assert_null(mirror_next_unknown(&m));
	e->readers = 0;
	entries_clear(&es, e);
	mirror_unknown(&m, e);
	mirror_fini(&m);
	assert_false(e->linked);
}

static void what_no_page_can_be_ends_it(void **state)
{
	static const struct {
		const char *page, *why;
	} bad[] = {
		{PAGE(RECORD("m:2", "a") "," RECORD("m:1", "a"), false),
		 "records are not in the order of their keys"},
		{PAGE(RECORD("m:2", "a") "," RECORD("m:2", "a"), false),
		 "records are not in the order of their keys"},
		{PAGE(RECORD("l", "a"), false), "a record is out of its bounds"},
		{PAGE(RECORD("m;1", "a"), false), "a record is out of its bounds"},
		{PAGE("", true), "a page is truncated and has no record"},
		{PAGE("5", false), "records are not in the order of their keys"},
		{"{\"code\":200,\"messageId\":1}", "an answer has no records"},
		{"{\"code\":200,\"records\":7,\"messageId\":1}", "an answer has no records"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		mirror_try_again(&m);
		mirror_start(&m, 0);
		ask(0);
		const char *why = answer(bad[i].page, 0);
		assert_non_null(why);
		assert_string_equal(bad[i].why, why);
		assert_int_equal(MIRROR_GIVEN_UP, m.state);
		mirror_start(&m, 0); /* not before mirror_try_again() */
		assert_int_equal(MIRROR_GIVEN_UP, m.state);
	}
}

/* The end of the page is a key that may exist without belonging to it. */
static void the_key_at_its_end_is_passed_over(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	ask(0);
	assert_null(answer(PAGE(RECORD("m:1", "a") "," RECORD("m;", "z"), false), 0));
	assert_null(find("m;"));
	assert_int_equal(1, es.n);
}

static void a_page_from_behind_its_beginning_has_nothing_before_that(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	ask(0);
	assert_null(answer(PAGE(RECORD("m:5", "a"), true), 0));
	ask(0);
	assert_non_null(answer(PAGE(RECORD("m:5", "a"), false), 0));
}

static void refusals_end_it_and_failures_do_not(void **state)
{
	int64_t now = 0, pause = 0;

	(void)state;
	mirror_start(&m, now);
	for (int i = 1; i <= 100; i++, now = m.due) {
		ask(now);
		assert_null(answer(ANSWER(503), now));
		assert_int_equal(MIRROR_LOADING, m.state);
		/* Five in a row, and one more, after a second, then doubling. */
		pause = i <= 6 ? 1000 : pause < 32000 ? 2 * pause : 60000;
		assert_int_equal(pause, m.due - now);
	}
	for (int i = 1; i <= 4; i++, now = m.due) {
		ask(now);
		assert_null(answer(ANSWER(400), now));
	}
	ask(now);
	assert_null(answer(ANSWER(500), now)); /* not in a row */
	for (int i = 1; i <= 4; i++) {
		now = m.due;
		ask(now);
		assert_null(answer(ANSWER(403), now));
	}
	ask(m.due);
	assert_null(answer(PAGE(RECORD("m:1", "a"), true), m.due)); /* nor are these */
	for (int i = 1; i <= 5; i++) {
		now = m.due;
		ask(now);
		assert_int_equal(i == 5, answer(i % 2 ? ANSWER(403) : ANSWER(400), now) != NULL);
		assert_true(i == 5 || m.due == now + 1000);
	}
	assert_int_equal(MIRROR_GIVEN_UP, m.state);
	mirror_try_again(&m);
	mirror_start(&m, 0); /* counted anew */
	for (int i = 1; i <= 4; i++) {
		ask(m.due);
		assert_null(answer(ANSWER(403), m.due));
	}
	assert_int_equal(MIRROR_LOADING, m.state);
}

static void without_an_answer_it_is_asked_for_again(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	ask(0);
	mirror_no_page(&m, false, 5);
	assert_false(mirror_wants_page(&m, 1004));
	ask(1005);
	assert_int_equal(MIRROR_PAGE, m.limit); /* it was not even sent */
	for (int limit = MIRROR_PAGE / 2; limit > MIRROR_PAGE_MIN; limit /= 2) {
		mirror_no_page(&m, true, m.due);
		assert_int_equal(limit, m.limit);
		ask(m.due);
	}
	mirror_no_page(&m, true, m.due);
	ask(m.due);
	mirror_no_page(&m, true, m.due);
	assert_int_equal(MIRROR_PAGE_MIN, m.limit);
}

/* A page that has as many records as it was asked for is no measure of the service's maximum. */
static void smaller_pages_do_not_lower_the_maximum(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	m.limit = 2;
	ask(0);
	assert_null(answer(PAGE(RECORD("m:1", "a") "," RECORD("m:2", "b"), true), 0));
	assert_int_equal(MIRROR_RANGE_MAX, m.range_max);
	ask(0); /* without the member only an empty page is certainly the last */
	assert_null(answer("{\"code\":200,\"records\":[" RECORD("m:3", "a") "," RECORD(
				   "m:4", "b") "],\"messageId\":1}",
			   0));
	assert_int_equal(MIRROR_LOADING, m.state);
	ask(0);
	assert_null(
		answer("{\"code\":200,\"records\":[" RECORD("m:5", "a") "],\"messageId\":1}", 0));
	assert_int_equal(MIRROR_LOADING, m.state);
	assert_int_equal(MIRROR_RANGE_MAX, m.range_max);
	ask(0);
	assert_null(answer("{\"code\":200,\"records\":[],\"messageId\":1}", 0));
	assert_int_equal(MIRROR_WHOLE, m.state);
	assert_int_equal(5, es.n);
}

static void what_does_not_fit_ends_it(void **state)
{
	(void)state;
	limits.memory = 2 * (ENTRY_COUNTED + 3 + 3) - 1;
	mirror_start(&m, 0);
	ask(0);
	const char *why = answer(PAGE(RECORD("m:1", "a") "," RECORD("m:2", "b"), false), 0);
	assert_non_null(why);
	assert_string_equal("too big for [cache] memory", why);
	assert_true(es.bytes <= limits.memory);
}

/* Also when it is read again, has a value of another length, or takes the place of another. */
static void a_record_as_large_as_the_memory_fits(void **state)
{
	int64_t now = 0;

	(void)state;
	limits.memory = ENTRY_COUNTED + 3 + 3;
	mirror_start(&m, now);
	for (int i = 0; i < 3; i++, now += MAX_AGE_MS / 2) {
		ask(now);
		assert_null(answer(PAGE(RECORD("m:1", "a"), false), now));
		assert_int_equal(limits.memory, es.bytes);
	}
	truth_doubt(&t, &es, find("m:1"));
	ask(now);
	assert_null(answer(PAGE(RECORD("m:1", ""), false), now));
	assert_int_equal(limits.memory - 1, es.bytes);
	truth_doubt(&t, &es, find("m:1"));
	now += MAX_AGE_MS / 2;
	ask(now);
	assert_null(answer(PAGE(RECORD("m:1", "b"), false), now));
	assert_int_equal(limits.memory, es.bytes);
	truth_doubt(&t, &es, find("m:1"));
	now += MAX_AGE_MS / 2;
	ask(now);
	assert_null(answer(PAGE(RECORD("m:2", "a"), false), now));
	assert_int_equal(limits.memory, es.bytes);
	truth_doubt(&t, &es, find("m:2"));
	now += MAX_AGE_MS / 2;
	ask(now);
	assert_non_null(answer(PAGE(RECORD("m:2", "aa"), false), now));
}

static void the_longest_key_belongs_to_it(void **state)
{
	struct buf page = {0};

	(void)state;
	for (int n = ENTRY_KEY_MAX; n <= ENTRY_KEY_MAX + 1; n++) {
		mirror_start(&m, 0);
		ask(0);
		buf_clear(&page);
		buf_addf(&page, "{\"code\":200,\"records\":[{\"key\":\"m:%0*d\",\"value\":\"\"}],",
			 n - 2, 0);
		buf_addf(&page, "\"truncated\":false,\"messageId\":1}");
		buf_add(&page, "", 1);
		assert_int_equal(n > ENTRY_KEY_MAX, answer(buf_start(&page), 0) != NULL);
	}
	buf_release(&page);
}

static void keys_give_way_to_it(void **state)
{
	(void)state;
	entries_set(
		&es,
		entries_make(&es, SPAN("k"), notification_bytes_hash(SPAN("k"), 1), ORIGIN_KEYS),
		ENTRY_FOUND, shape_ref(es.shapes.found), SPAN("\"v\""));
	limits.memory = 2 * (ENTRY_COUNTED + 3 + 3);
	load(0);
	assert_null(find("k"));
	assert_int_equal(limits.memory, es.bytes);
}

static void a_mirror_that_has_stopped_takes_no_page(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	ask(0);
	mirror_stop(&m);
	assert_null(answer(PAGE(RECORD("m:1", "a"), false), 0));
	assert_int_equal(MIRROR_OUT, m.state);
	assert_null(find("m:1"));
	assert_false(mirror_wants_page(&m, 100000));
	mirror_start(&m, 0);
	ask(0);
	mirror_start(&m, 0); /* which does not wait for the page of before */
	assert_true(mirror_wants_page(&m, 0));
}

/* Someone was told that it is missing; the page on its way may be older. */
static void a_missing_key_stays_while_a_page_is_on_its_way(void **state)
{
	struct entry *e;

	(void)state;
	mirror_start(&m, 0);
	ask(0);
	e = make("m:1");
	assert_true(truth_tell(&t, &es, e, truth_now(&t), t.nothing));
	mirror_missing(&m, e, 0);
	assert_ptr_equal(e, find("m:1"));
	assert_null(answer(PAGE(RECORD("m:1", "a"), false), 0));
	assert_int_equal(ENTRY_EMPTY, find("m:1")->state);
}

static void a_missing_key_stays_for_as_long_as_notifications_may_be_older(void **state)
{
	struct entry *e;

	(void)state;
	limits.keep_missing_ms = 100;
	load(0);
	e = make("m:2");
	truth_answered(e, 5);
	mirror_missing(&m, e, 104);
	assert_ptr_equal(e, find("m:2"));
	mirror_missing(&m, e, 105);
	assert_null(find("m:2"));
}

/* For as long as a value: a page has said so. */
static void a_missing_key_that_stays_is_known(void **state)
{
	int64_t now = MAX_AGE_MS / 2;

	(void)state;
	limits.keep_missing_ms = MAX_AGE_MS;
	load(0);
	truth_answered(make("m:2"), now);
	ask(now);
	assert_null(answer(PAGE(RECORD("m:1", "a") "," RECORD("m:3", "c"), false), now));
	assert_non_null(find("m:2"));
	assert_non_null(range("m:1", "m:3", 10, now + MAX_AGE_MS));
}

/* ---- answers ---- */

static void ranges(void **state)
{
	(void)state;
	load(0);
	assert_string_equal("{\"code\":200,\"records\":[" RECORD("m:1", "a") "," RECORD(
				    "m:3", "c") "],"
						"\"count\":2,\"truncated\":false",
			    range("m:", "m:\x7f", 100, 0));
	assert_string_equal(
		"{\"code\":200,\"records\":[" RECORD("m:1", "a") "],\"count\":1,\"truncated\":true",
		range("m:", "m:\x7f", 1, 0));
	assert_string_equal(
		"{\"code\":200,\"records\":[" RECORD("m:1", "a") "," RECORD(
			"m:3", "c") "],"
				    "\"count\":2,\"truncated\":false",
		range("m:", "m:\x7f", 2, 0)); /* as many as there are: no more to come */
	assert_string_equal("{\"code\":200,\"records\":[" RECORD(
				    "m:1", "a") "],\"count\":1,\"truncated\":false",
			    range("m:1", "m:1", 100, 0)); /* both ends belong to it */
	assert_string_equal("{\"code\":200,\"records\":[],\"count\":0,\"truncated\":false",
			    range("m:2", "m:22", 100, 0));
	assert_null(range("m", "m:3", 100, 0));
	assert_null(range("m:", "m;", 100, 0));
	assert_null(range("m:3", "m:1", 100, 0));
	assert_null(range("m:2", "m:1", 100, 0));
	assert_null(range("m:1", "m:3", 100, MAX_AGE_MS + 1));
	m.confirmed = 1; /* the mirror is young enough, and one of its values is not */
	find("m:3")->read_at = 1;
	assert_null(range("m:1", "m:3", 100, MAX_AGE_MS + 1));
	assert_non_null(range("m:2", "m:3", 100, MAX_AGE_MS + 1));
}

static void a_key_that_is_not_known_spoils_ranges_over_it_only(void **state)
{
	struct entry *e;

	(void)state;
	load(0);
	e = make("m:2");
	truth_doubt(&t, &es, e);
	mirror_unknown(&m, e);
	assert_null(range("m:1", "m:3", 100, 0));
	assert_null(range("m:1", "m:2", 100, 0));
	assert_non_null(range("m:3", "m:4", 100, 0));
	assert_non_null(range("m:1", "m:11", 100, 0));
	/* Behind the last record it is needed to tell whether more come. */
	assert_null(range("m:1", "m:3", 1, 0));
	mirror_missing(&m, e, 0);
	assert_null(find("m:2"));
	assert_non_null(range("m:1", "m:3", 100, 0));
}

static void a_write_that_is_not_over_spoils_them_too(void **state)
{
	(void)state;
	load(0);
	find("m:1")->fences = 1;
	assert_null(range("m:1", "m:3", 100, 0));
	assert_non_null(range("m:2", "m:3", 100, 0));
	find("m:1")->fences = 0;
}

static void a_missing_key_is_no_record(void **state)
{
	struct entry *e;

	(void)state;
	load(0);
	e = find("m:1");
	e->readers = 1; /* so it stays */
	mirror_missing(&m, e, 0);
	assert_ptr_equal(e, find("m:1"));
	assert_string_equal("{\"code\":200,\"records\":[" RECORD(
				    "m:3", "c") "],\"count\":1,\"truncated\":false",
			    range("m:1", "m:3", 1, 0));
	e->readers = 0;
}

static void a_page_with_fewer_records_lowers_the_maximum(void **state)
{
	(void)state;
	mirror_start(&m, 0);
	ask(0);
	assert_null(answer(PAGE(RECORD("m:1", "a") "," RECORD("m:2", "b"), true), 0));
	ask(0);
	assert_null(answer(PAGE(RECORD("m:3", "c"), false), 0)); /* the last one is no measure */
	assert_string_equal("{\"code\":200,\"records\":[" RECORD("m:1", "a") "," RECORD(
				    "m:2", "b") "],"
						"\"count\":2,\"truncated\":true",
			    range("m:", "m:\x7f", 100, 0));
	load(0); /* measured anew */
	assert_int_equal(MIRROR_RANGE_MAX, m.range_max);
}

static void answers_over_it_are_noted(void **state)
{
	(void)state;
	load(5);
	assert_int_equal(5, m.answered_at);
	mirror_answered(&m, SPAN("a"), SPAN("l"), 6);
	mirror_answered(&m, SPAN("n"), SPAN("z"), 6);
	assert_int_equal(5, m.answered_at);
	mirror_answered(&m, SPAN("a"), SPAN("z"), 7);
	assert_int_equal(7, m.answered_at);
	mirror_answered(&m, SPAN("m:4"), SPAN("m:4"), 8);
	assert_int_equal(8, m.answered_at);
	mirror_answered(&m, SPAN("a"), SPAN("m:"), 9);
	assert_int_equal(9, m.answered_at);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(its_end_is_behind_all_keys_with_the_prefix),
		cmocka_unit_test(the_greatest_character_is_an_end_that_belongs_to_it),
		CASE(keys_with_the_prefix_belong_to_it),
		CASE(the_last_page_makes_it_whole),
		CASE(it_is_read_again_in_half_of_max_age_and_believed_for_all_of_it),
		CASE(pages_of_a_pass_are_spread_over_it),
		CASE(a_shorter_age_makes_pages_come_sooner),
		CASE(a_page_that_may_have_missed_changes_is_asked_for_again),
		CASE(a_key_that_has_changed_meanwhile_is_not_believed),
		CASE(a_key_that_is_being_written_does_not_wait),
		CASE(a_page_tells_of_keys_that_were_not_known),
		CASE(a_page_that_contradicts_makes_a_key_unknown),
		CASE(values_are_kept_as_lines),
		CASE(unknown_keys_wait_once_and_while_it_is_active),
		CASE(what_no_page_can_be_ends_it),
		CASE(the_key_at_its_end_is_passed_over),
		CASE(a_page_from_behind_its_beginning_has_nothing_before_that),
		CASE(refusals_end_it_and_failures_do_not),
		CASE(without_an_answer_it_is_asked_for_again),
		CASE(smaller_pages_do_not_lower_the_maximum),
		CASE(what_does_not_fit_ends_it),
		CASE(a_record_as_large_as_the_memory_fits),
		CASE(the_longest_key_belongs_to_it),
		CASE(keys_give_way_to_it),
		CASE(a_mirror_that_has_stopped_takes_no_page),
		CASE(a_missing_key_stays_while_a_page_is_on_its_way),
		CASE(a_missing_key_stays_for_as_long_as_notifications_may_be_older),
		CASE(a_missing_key_that_stays_is_known),
		CASE(ranges),
		CASE(a_key_that_is_not_known_spoils_ranges_over_it_only),
		CASE(a_write_that_is_not_over_spoils_them_too),
		CASE(a_missing_key_is_no_record),
		CASE(a_page_with_fewer_records_lowers_the_maximum),
		CASE(answers_over_it_are_noted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
