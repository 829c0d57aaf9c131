/* An answer from its shape and its value is the service's answer with another messageId. */
#include "../test.h"

#include <stdio.h>

#include "cache/shape.h"

static void assert_same(const char *answer, const char *key, const char *with_id,
			const char *without)
{
	struct shapes shapes;
	struct wire_frame frame;
	struct buf out = {0};
	struct span text = copy_of(span_of(answer)), value;

	shapes_init(&shapes);
	wire_parse(text, &frame);
	assert_int_equal(frame.kind, WIRE_ANSWER);
	struct shape *shape = shape_of(&shapes, &frame, span_of(key), &value);
	assert_non_null(shape);
	shape_write(shape, span_of(key), value, SPAN("\"me\""), SPAN(",\"cached\":true"), &out);
	assert_span(buf_span(&out), with_id);
	buf_take(&out, buf_len(&out));
	shape_write(shape, span_of(key), value, (struct span){0}, SPAN(",\"cached\":true"), &out);
	assert_span(buf_span(&out), without);
	buf_release(&out);
	shape_unref(&shapes, shape);
	shapes_fini(&shapes);
	free_copy(text);
}

static void the_bytes_of_the_service_stay(void **state)
{
	(void)state;
	assert_same("{\"code\":200,\"key\":\"k\",\"value\":\"v\",\"messageId\":17}", "k",
		    "{\"code\":200,\"key\":\"k\",\"value\":\"v\",\"messageId\":\"me\",\"cached\":"
		    "true}\n",
		    "{\"code\":200,\"key\":\"k\",\"value\":\"v\",\"cached\":true}\n");
	assert_same("{ \"messageId\" : 17 , \"value\":\"\\u00e9\", \"code\":200 }\n", "k",
		    "{ \"messageId\" : \"me\" , \"value\":\"\\u00e9\", \"code\":200 "
		    ",\"cached\":true}\n",
		    "{  \"value\":\"\\u00e9\", \"code\":200 ,\"cached\":true}\n");
	assert_same(
		"{\"code\":200,\"value\":{\"messageId\":1},\n\"messageId\":2,\"key\":\"\\u006b\"}",
		"k",
		"{\"code\":200,\"value\":{\"messageId\":1}, "
		"\"messageId\":\"me\",\"key\":\"\\u006b\",\"cached\":true}\n",
		"{\"code\":200,\"value\":{\"messageId\":1}, "
		"\"key\":\"\\u006b\",\"cached\":true}\n");
	assert_same("{\"code\":404,\"error\":\"Record not found\",\"messageId\":3}", "k",
		    "{\"code\":404,\"error\":\"Record not "
		    "found\",\"messageId\":\"me\",\"cached\":true}\n",
		    "{\"code\":404,\"error\":\"Record not found\",\"cached\":true}\n");
}

static struct shape *shape_of_text(struct shapes *shapes, const char *text)
{
	struct wire_frame frame;
	struct span value;

	wire_parse(span_of(text), &frame);
	return shape_of(shapes, &frame, SPAN("k"), &value);
}

static void alike_answers_share_a_shape(void **state)
{
	struct shapes shapes;
	struct shape *all[100], *a, *b;
	char text[80];

	(void)state;
	shapes_init(&shapes);
	a = shape_of_text(&shapes, "{\"code\":200,\"key\":\"k\",\"value\":\"1\",\"messageId\":1}");
	b = shape_of_text(&shapes,
			  "{\"code\":200,\"key\":\"k\",\"value\":\"22\",\"messageId\":333}");
	assert_ptr_equal(a, b);
	assert_ptr_equal(a, shapes.found);
	assert_int_equal(shape_own_size(a), 0);
	/* Of forms without end some are shared, and the rest is the memory of their users. */
	for (int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text),
			 "{\"code\":200,\"n\":%d,\"key\":\"k\",\"value\":\"1\",\"messageId\":1}",
			 i);
		all[i] = shape_of_text(&shapes, text);
	}
	assert_int_equal(shape_own_size(all[0]), 0);
	assert_true(shape_own_size(all[99]) > 0);
	for (int i = 0; i < 100; i++)
		shape_unref(&shapes, all[i]);
	all[0] = shape_of_text(&shapes, text);
	assert_int_equal(shape_own_size(all[0]), 0);
	shape_unref(&shapes, all[0]);
	shape_unref(&shapes, a);
	shape_unref(&shapes, b);
	shapes_fini(&shapes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_bytes_of_the_service_stay),
		cmocka_unit_test(alike_answers_share_a_shape),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
