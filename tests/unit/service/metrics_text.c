/* The figures as text (metrics_text.h): escapes of both formats, numbers digit for digit, and
 * the walk over the tables (stats.h). */
#include "../test.h"

#include <math.h>

#include "service/metrics_text.h"

/* A fresh text of one sample, by either visitor. */
static void check_sample(const struct stats_label *labels, size_t n, double value, const char *text,
			 const char *json)
{
	struct buf out = {0}, object = {0};
	struct metrics_text_json j = {.out = &object};

	page_text_visitor.sample(&out, "f", "_s", labels, n, value);
	page_json_visitor.sample(&j, "f", "_s", labels, n, value);
	assert_span(buf_span(&out), text);
	assert_span(buf_span(&object), json);
	buf_release(&out);
	buf_release(&object);
	buf_release(&j.name);
}

static void labels(void **state)
{
	static const struct stats_label two[] = {{"a", "x"}, {"b", "y z{}=,"}};

	(void)state;
	check_sample(NULL, 0, 1, "f_s 1\n", "\"f_s\":1");
	check_sample(two, 1, 1, "f_s{a=\"x\"} 1\n", "\"f_s{a=\\\"x\\\"}\":1");
	check_sample(two, 2, 1, "f_s{a=\"x\",b=\"y z{}=,\"} 1\n",
		     "\"f_s{a=\\\"x\\\",b=\\\"y z{}=,\\\"}\":1");
}

static void what_a_label_must_not_say_is_escaped(void **state)
{
	static const struct stats_label bad = {"a", "back\\slash \"quote\"\nend \xc3\xa9"};

	(void)state;
	check_sample(
		&bad, 1, 0, "f_s{a=\"back\\\\slash \\\"quote\\\"\\nend \xc3\xa9\"} 0\n",
		"\"f_s{a=\\\"back\\\\\\\\slash \\\\\\\"quote\\\\\\\"\\\\nend \xc3\xa9\\\"}\":0");
}

static void help_is_one_line(void **state)
{
	struct buf out = {0};

	(void)state;
	page_text_visitor.family(&out, "f", "a \"word\"\nand a \\", STATS_GAUGE);
	assert_span(buf_span(&out), "# HELP f a \"word\"\\nand a \\\\\n# TYPE f gauge\n");
	buf_release(&out);
}

static void numbers(void **state)
{
	(void)state;
	check_sample(NULL, 0, 0.025, "f_s 0.025\n", "\"f_s\":0.025");
	check_sample(NULL, 0, -2, "f_s -2\n", "\"f_s\":-2");
	check_sample(NULL, 0, 1e15, "f_s 1000000000000000\n", "\"f_s\":1000000000000000");
	check_sample(NULL, 0, 1795619184.358, "f_s 1795619184.358\n", "\"f_s\":1795619184.358");
	check_sample(NULL, 0, 9007199254740993.0, "f_s 9.00719925474099e+15\n",
		     "\"f_s\":9.00719925474099e+15");
}

static void members_are_separated(void **state)
{
	struct buf out = {0};
	struct metrics_text_json j = {.out = &out};

	(void)state;
	page_json_visitor.sample(&j, "a", "", NULL, 0, 1);
	page_json_visitor.sample(&j, "b", "", NULL, 0, 2);
	assert_span(buf_span(&out), "\"a\":1,\"b\":2");
	buf_release(&out);
	buf_release(&j.name);
}

/* ---- the walk ---- */

static struct stats_gauges nothing(void)
{
	struct stats_gauges g = {0};

#define FORGET(name, type, help) g.name = NAN;
	STATS_GAUGES(FORGET)
	STATS_PROCESS(FORGET)
#undef FORGET
	return g;
}

static void check_has(const struct buf *page, const char *text, bool there)
{
	struct span all = buf_span(page);

	if ((memmem(all.p, all.n, text, strlen(text)) != NULL) != there)
		fail_msg("%s '%s' in:\n%.*s", there ? "there is no" : "there is", text, (int)all.n,
			 all.p);
}

static void what_has_no_value_is_not_there(void **state)
{
	struct stats s = {0};
	struct stats_gauges g = nothing();
	struct buf page = {0}, json = {0};

	(void)state;
	g.clients = 0;
	metrics_text_write(&s, &g, &page);
	metrics_text_write_json(&s, &g, &json);
	check_has(&page, "\nhpkvd_clients 0\n", true);
	check_has(&page, "\nhpkvd_clients_max ", false);
	check_has(&page, "# TYPE hpkvd_clients_max gauge\n", true);
	check_has(&json, ",\"hpkvd_clients\":0,", true);
	check_has(&json, "hpkvd_clients_max", false);
	check_has(&json, "nan", false);
	buf_release(&page);
	buf_release(&json);
}

static void one_state_is_1(void **state)
{
	static const char *const names[] = {"up", "down"};
	struct stats s = {0};
	struct stats_gauges g = nothing();
	struct buf page = {0};

	(void)state;
	g.states = names;
	g.n_states = 2;
	g.state = 1;
	metrics_text_write(&s, &g, &page);
	check_has(&page, "hpkvd_upstream_state{state=\"up\"} 0\n", true);
	check_has(&page, "hpkvd_upstream_state{state=\"down\"} 1\n", true);
	buf_release(&page);
}

static void an_outcome_that_was_not_expected_is_shown_once_it_is_there(void **state)
{
	static const char line[] = "hpkvd_requests_ended_total{op=\"ping\",outcome=\"too_large\"}";
	struct stats s = {0};
	struct stats_gauges g = nothing();
	struct buf page = {0};

	(void)state;
	metrics_text_write(&s, &g, &page);
	check_has(&page, line, false);
	check_has(&page, "hpkvd_requests_ended_total{op=\"ping\",outcome=\"ok\"} 0\n", true);
	stats_ended(&s, OP_PING, outcome_of(REPLY_TOO_LARGE));
	metrics_text_write(&s, &g, &page);
	check_has(&page, line, true);
	buf_release(&page);
}

static void histograms_are_cumulative(void **state)
{
	struct stats s = {0};
	struct stats_gauges g = nothing();
	struct buf page = {0};

	(void)state;
	/* A bound belongs to its bucket; a clock that went backwards counts as nothing. */
	static const int64_t times[] = {-3, 0, 5, 6, 60000, 60001};
	for (size_t i = 0; i < COUNT(times); i++)
		histogram_add(&s.request_wait, times[i]);
	metrics_text_write(&s, &g, &page);
	check_has(&page, "hpkvd_request_wait_seconds_bucket{le=\"0.005\"} 3\n", true);
	check_has(&page, "hpkvd_request_wait_seconds_bucket{le=\"0.01\"} 4\n", true);
	check_has(&page, "hpkvd_request_wait_seconds_bucket{le=\"30\"} 4\n", true);
	check_has(&page, "hpkvd_request_wait_seconds_bucket{le=\"60\"} 5\n", true);
	check_has(&page, "hpkvd_request_wait_seconds_bucket{le=\"+Inf\"} 6\n", true);
	check_has(&page, "hpkvd_request_wait_seconds_sum 120.012\n", true);
	check_has(&page, "hpkvd_request_wait_seconds_count 6\n", true);
	check_has(&page, "hpkvd_request_service_seconds_count 0\n", true);
	buf_release(&page);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(labels),
		cmocka_unit_test(what_a_label_must_not_say_is_escaped),
		cmocka_unit_test(help_is_one_line),
		cmocka_unit_test(numbers),
		cmocka_unit_test(members_are_separated),
		cmocka_unit_test(what_has_no_value_is_not_there),
		cmocka_unit_test(one_state_is_1),
		cmocka_unit_test(an_outcome_that_was_not_expected_is_shown_once_it_is_there),
		cmocka_unit_test(histograms_are_cumulative),
	};

	return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
