#include "relay.h"

#include <stdio.h>

#include "test.h"

struct told {
	char keys[100];
};

static void on_change(void *owner, const struct wire_frame *frame, const struct change *change)
{
	struct told *told = owner;
	struct span key = json_string_raw(&frame->key);
	size_t n = strlen(told->keys);

	(void)change;
	snprintf(told->keys + n, sizeof(told->keys) - n, "%.*s ", (int)key.n, key.p);
}

static bool covers(void *owner, const struct wire_frame *frame, const struct change *change,
		   bool former)
{
	(void)owner, (void)frame, (void)change, (void)former;
	return true;
}

static void let_go(void *owner)
{
	(void)owner;
}

static const struct relay_ops ops = {.change = on_change, .covers = covers, .let_go = let_go};

static bool brings(struct relay *r, bool (*lane)(struct relay *, const struct wire_frame *),
		   const char *key)
{
	struct wire_frame frame;
	char text[100];

	snprintf(text, sizeof(text),
		 "{\"type\":\"notification\",\"key\":\"%s\",\"value\":\"v\",\"timestamp\":1}", key);
	wire_parse((struct span){text, strlen(text)}, &frame);
	return lane(r, &frame);
}

/* A lane has taken over from the former one, and the next is being made. */
static void begin_with_a_former_lane(struct relay *relay, struct told *told)
{
	static const struct handover_limits limits = {.remembered = 4, .held_bytes = 1000};

	relay_init(relay, 1, &ops, told);
	relay_limit(relay, &limits);
	relay_begin(relay);
	relay_move(relay, false);
	relay_begin(relay);
}

/* What the former lane was waited for with fills the comparison with the next one in the moment in
 * which that takes over: from then on there is nothing that could be given up for it. */
static void what_is_too_much_at_the_move_is_over_with_it(void **state)
{
	struct told told = {""};
	struct relay relay;

	(void)state;
	begin_with_a_former_lane(&relay, &told);
	assert_true(brings(&relay, relay_present, "a")); /* until the former one brings it too */
	assert_true(brings(&relay, relay_next, "b"));
	assert_true(brings(&relay, relay_next, "c"));
	assert_string_equal(told.keys, "");
	relay_move(&relay, true);
	assert_string_equal(told.keys, "a b c ");
	assert_true(brings(&relay, relay_present, "b"));
	relay_fini(&relay);
}

/* What the former lane was waited for with is told when that is gone, and then fills the comparison
 * with the next one: that is known before a lane brings anything more. */
static void what_is_too_much_when_the_former_one_is_gone_is_told(void **state)
{
	struct told told = {""};
	struct relay relay;

	(void)state;
	begin_with_a_former_lane(&relay, &told);
	assert_true(brings(&relay, relay_present, "a"));
	assert_true(brings(&relay, relay_next, "b"));
	assert_true(brings(&relay, relay_next, "c"));
	assert_false(relay_overflows(&relay));
	relay_former_gone(&relay);
	assert_string_equal(told.keys, "a ");
	assert_true(relay_overflows(&relay));
	relay_abort(&relay);
	assert_false(relay_overflows(&relay));
	relay_fini(&relay);
}

static void lanes_are_aligned_unless_the_next_one_is_ahead(void **state)
{
	struct told told = {""};
	struct relay relay;

	(void)state;
	relay_init(&relay, 1, &ops, &told);
	assert_true(relay_aligned(&relay)); /* there is no next one */
	relay_limit(&relay, &(struct handover_limits){.remembered = 4, .held_bytes = 1000});
	relay_begin(&relay);
	assert_true(relay_aligned(&relay));
	assert_true(brings(&relay, relay_next, "a"));
	assert_false(relay_aligned(&relay));
	assert_true(brings(&relay, relay_present, "a"));
	assert_true(relay_aligned(&relay));
	assert_true(brings(&relay, relay_next, "b"));
	relay_abort(&relay);
	assert_true(relay_aligned(&relay));
	assert_string_equal(told.keys, "a ");
	relay_fini(&relay);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_too_much_at_the_move_is_over_with_it),
		cmocka_unit_test(what_is_too_much_when_the_former_one_is_gone_is_told),
		cmocka_unit_test(lanes_are_aligned_unless_the_next_one_is_ahead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
