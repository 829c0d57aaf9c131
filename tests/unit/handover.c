/* A scene is a text: each word is a step, and the changes that are told are written down as such
 * words again. A change is a letter for its connection (m main, n next, f former), its key, its
 * value and its timestamp: "nax1" is the next connection's, of key a with value x at 1. */
#include "handover.h"

#include "test.h"

#include <stdio.h>
#include <string.h>

struct scene {
	struct handover h;
	char told[4096];
	size_t n;
	bool fits; /* what was brought last */
};

static void write_down(struct scene *s, const char *how, const struct wire_frame *frame)
{
	char key = frame ? frame->key.text.p[1] : '*', value = '*';
	int stamp = 0;

	if (frame) {
		value = frame->value.text.p[1];
		if (frame->timestamp.text.p)
			stamp = atoi(frame->timestamp.text.p);
	}
	s->n += (size_t)snprintf(s->told + s->n, sizeof(s->told) - s->n, "%s%s%c%c%d",
				 s->n ? " " : "", how, key, value, stamp);
	assert_true(s->n < sizeof(s->told));
}

static void on_change(void *owner, const struct wire_frame *frame, const struct change *change)
{
	assert_true(change->key_hash);
	write_down(owner, "", frame);
}

static void on_straggler(void *owner, const struct wire_frame *frame, const struct change *change)
{
	assert_int_equal(frame != NULL, change != NULL);
	write_down(owner, "lost:", frame);
}

static const struct handover_ops ops = {.change = on_change, .straggler = on_straggler};

static void open_scene(struct scene *s, size_t records, size_t text_bytes)
{
	const struct handover_limits limits = {records, text_bytes};

	*s = (struct scene){.fits = true};
	handover_init(&s->h, 42, &ops, s);
	handover_limit(&s->h, &limits);
}

static void close_scene(struct scene *s)
{
	handover_fini(&s->h);
	assert_int_equal(0, s->h.n);
	assert_int_equal(0, s->h.text_bytes);
}

static enum handover_from from_of(char letter)
{
	return letter == 'm' ? HANDOVER_MAIN : letter == 'n' ? HANDOVER_NEXT : HANDOVER_FORMER;
}

static void bring(struct scene *s, enum handover_from from, char key, int value, int64_t stamp)
{
	struct wire_frame frame;
	char text[128], copy[128];
	int n;

	if (stamp)
		n = snprintf(text, sizeof(text),
			     "{\"type\":\"notification\",\"key\":\"%c\",\"value\":\"%c\","
			     "\"timestamp\":%lld}",
			     key, value, (long long)stamp);
	else
		n = snprintf(text, sizeof(text),
			     "{\"type\":\"notification\",\"key\":\"%c\",\"value\":\"%c\"}", key,
			     value);
	memcpy(copy, text, (size_t)n);
	wire_parse((struct span){copy, (size_t)n}, &frame);
	s->fits = handover_brings(&s->h, from, &frame);
	memset(copy, 0, sizeof(copy)); /* it was valid during the call only */
}

static void step(struct scene *s, const char *word)
{
	static const struct {
		const char *name;
		void (*step)(struct handover *h);
	} steps[] = {
		{"begin", handover_begin},   {"abort", handover_abort},
		{"move", handover_move},     {"gone", handover_former_gone},
		{"expire", handover_expire}, {"forget", handover_forget},
	};

	for (size_t i = 0; i < COUNT(steps); i++) {
		if (strcmp(word, steps[i].name) == 0) {
			steps[i].step(&s->h);
			return;
		}
	}
	bring(s, from_of(word[0]), word[1], word[2], atoi(word + 3));
}

static void play(struct scene *s, const char *text)
{
	char copy[512], *rest = copy, *word;

	snprintf(copy, sizeof(copy), "%s", text);
	while ((word = strsep(&rest, " ")))
		step(s, word);
}

static void check(const char *text, const char *told)
{
	struct scene s;

	open_scene(&s, 1000, 10000);
	play(&s, text);
	if (strcmp(told, s.told) != 0)
		fail_msg("%s\n told: %s\n not:  %s", text, s.told, told);
	close_scene(&s);
}

static void one_connection(void **state)
{
	struct scene s;

	(void)state;
	open_scene(&s, 0, 0);
	play(&s, "max1 may2 max1 nbz3 fbz3"); /* of connections that are not compared */
	assert_string_equal("ax1 ay2 ax1", s.told);
	assert_int_equal(0, s.h.n);
	close_scene(&s);
}

static void until_the_move(void **state)
{
	(void)state;
	check("begin nax1", ""); /* held */
	check("begin nax1 max1", "ax1");
	check("begin max1 nax1 move", "ax1");
	check("begin nax1 nay2 max1 nbz3 move", "ax1 ay2 bz3");
	check("begin nax1 nbz2 nay3 move", "ax1 bz2 ay3"); /* in the order of arrival */
	/* One that the main connection has left out comes before what that brings next. */
	check("begin nax1 nay2 naz3 may2", "ax1 ay2");
	check("begin nax1 nay2 naz3 may2 move", "ax1 ay2 az3");
	/* Equal values are different changes, and the same one twice is two. */
	check("begin max1 max2 nax2 nax3 move", "ax1 ax2 ax3");
	check("begin max1 max1 nax1 nax1 nax1 move", "ax1 ax1 ax1");
}

static void after_the_move(void **state)
{
	(void)state;
	/* The main connection is late with what the former one has brought. */
	check("begin max1 move max1 may2", "ax1 ay2");
	check("begin max1 move gone max1 may2", "ax1 ay2");
	check("begin max1 move gone forget max1", "ax1 ax1");
	/* The former one is, with what the main one has brought. */
	check("begin nax1 move fax1 may2 fay2", "ax1 ay2");
	/* It is faster, with a key of which the main one has not spoken ... */
	check("begin move fax1 fay2 max1 may2 maz3 faz3", "ax1 ay2 az3");
	/* ... and of which it has. */
	check("begin nax1 move fay2 may2", "ax1 ay2");
	check("begin nax1 move fay2 faz3 may2 maz3", "ax1 ay2 az3");
}

static void stragglers(void **state)
{
	(void)state;
	check("begin nay2 move fax1 expire", "ay2");
	check("begin nay2 move fax1 expire max1 expire", "ay2 ax1"); /* it came in time */
	check("begin nay2 move fax1 expire expire", "ay2 lost:ax1");
	check("begin nay2 move fax1 forget", "ay2 lost:ax1");
	check("begin nay2 move fax1 gone forget", "ay2 lost:ax1");
	/* The main connection brings a later one, so it will not bring this. */
	check("begin nay2 move fax1 faz3 maz3", "ay2 lost:ax1 az3");
	/* Of another key nothing follows. */
	check("begin nay2 nbv2 move fax1 fbz3 mbz3", "ay2 bv2 bz3");
}

static void three_connections(void **state)
{
	(void)state;
	/* The former connection is ahead of both. */
	check("begin move fax1 begin nax1 max1 move", "ax1");
	/* The next one holds what the former one delivers, and that in this order. */
	check("begin move begin nax1 nay2 fax1 fay2 faz3 naz3 max1 may2 maz3", "ax1 ay2 az3");
	check("begin move begin nay2 fax1 fay2 max1 may2", "ax1 ay2");
	/* What the former one has delivered, the main one may bring when it is the former. */
	check("begin move begin fax1 nax1 move fax1", "ax1");
	/* A straggler that the next one brings too waits for the main one, or for the move. */
	check("begin nax1 move begin fay2 nay2 may2", "ax1 ay2");
	check("begin nax1 move begin fay2 nay2 move", "ax1 ay2");
	check("begin nax1 move begin fay2 nay2 abort may2", "ax1 ay2");
	check("begin nax1 move begin fay2 move may2", "ax1 ay2");
	/* Two moves before. */
	check("begin max1 move max1 begin max1 move", "ax1 ax1");
}

static void aborted(void **state)
{
	(void)state;
	check("begin nax1 abort", "");
	check("begin nax1 abort max1", "ax1");
	check("begin nax1 abort begin max1 nax1 move", "ax1");
	check("begin max1 abort nax1 begin move max1",
	      "ax1 ax1"); /* nothing is left of the first */
	check("abort", "");
	check("move max1", "ax1"); /* there was no main connection */
}

/* By its value alone a change can't be told from an earlier one. It is not lost. */
static void without_timestamps(void **state)
{
	(void)state;
	check("begin max0 may0 move max0", "ax0 ay0 ax0");
	check("begin nax0 max0 move", "ax0");
}

static void bounds(void **state)
{
	struct scene s;

	(void)state;
	open_scene(&s, 4, 1000); /* two changes of two keys */
	play(&s, "begin max1 mbx1");
	assert_true(s.fits);
	play(&s, "mcx1");
	assert_false(s.fits);
	assert_string_equal("ax1 bx1 cx1", s.told); /* told all the same */
	play(&s, "abort");
	assert_int_equal(0, s.h.n);
	close_scene(&s);

	open_scene(&s, 4, 1000);
	play(&s, "begin nax1 nbx1");
	assert_true(s.fits);
	play(&s, "ncx1");
	assert_false(s.fits);
	close_scene(&s);

	open_scene(&s, 1000, 60); /* one text */
	play(&s, "begin nax1");
	assert_true(s.fits);
	play(&s, "nbx1");
	assert_false(s.fits);
	close_scene(&s);

	/* After the move nothing can be given up: the comparison ends. */
	open_scene(&s, 4, 1000);
	play(&s, "begin move max1 mbx1 mcx1 mdx1 fax1");
	assert_true(s.fits);
	assert_string_equal("ax1 bx1 lost:**0 cx1 dx1", s.told);
	close_scene(&s);
}

/* What each connection has brought, and can't bring again, is not kept. */
static void records_go(void **state)
{
	struct scene s;

	(void)state;
	open_scene(&s, 1000, 10000);
	play(&s, "begin max1 may2 maz3 naz3");
	assert_int_equal(1, s.h.n); /* the key: what was before it is older than the next one */
	play(&s, "nax4 max4 move fax5 max5 max6 fax6");
	assert_int_equal(1, s.h.n);
	play(&s, "max7");
	assert_int_equal(2, s.h.n);
	play(&s, "gone");
	assert_int_equal(1, s.h.n);
	play(&s, "forget");
	assert_int_equal(0, s.h.n);
	close_scene(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_connection),     cmocka_unit_test(until_the_move),
		cmocka_unit_test(after_the_move),     cmocka_unit_test(stragglers),
		cmocka_unit_test(three_connections),  cmocka_unit_test(aborted),
		cmocka_unit_test(without_timestamps), cmocka_unit_test(bounds),
		cmocka_unit_test(records_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
