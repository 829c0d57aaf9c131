#include "codec/stats.h"

#include <math.h>
#include <stdbool.h>

/* Upper bounds, from the clock's resolution to the longest timeoutMs. */
static const struct {
	int64_t ms;
	const char *seconds;
} bounds[] = {
	{5, "0.005"},  {10, "0.01"},  {25, "0.025"}, {50, "0.05"},        {100, "0.1"},
	{250, "0.25"}, {500, "0.5"},  {1000, "1"},   {2500, "2.5"},       {5000, "5"},
	{10000, "10"}, {30000, "30"}, {60000, "60"}, {INT64_MAX, "+Inf"},
};
_Static_assert(sizeof(bounds) / sizeof(bounds[0]) == HISTOGRAM_BUCKETS, "a bound for each bucket");

void histogram_add(struct histogram *h, int64_t ms)
{
	unsigned i = 0;

	while (ms > bounds[i].ms)
		i++;
	h->bucket[i]++;
	h->sum_ms += ms > 0 ? (uint64_t)ms : 0;
}

/* ---- the walk ---- */

struct walk {
	const struct stats_visitor *visitor;
	void *owner;
	const char *family;
};

static void begin(struct walk *w, const char *name, enum stats_type type, const char *help)
{
	w->family = name;
	w->visitor->family(w->owner, name, help, type);
}

static void tell(struct walk *w, const char *suffix, const struct stats_label *labels,
		 size_t n_labels, double value)
{
	if (!isnan(value))
		w->visitor->sample(w->owner, w->family, suffix, labels, n_labels, value);
}

static void tell_one(struct walk *w, const char *name, enum stats_type type, const char *help,
		     double value)
{
	begin(w, name, type, help);
	tell(w, "", NULL, 0, value);
}

static void tell_histogram(struct walk *w, const char *name, const char *help,
			   const struct histogram *h)
{
	uint64_t n = 0;

	begin(w, name, STATS_HISTOGRAM, help);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		struct stats_label le = {"le", bounds[i].seconds};
		n += h->bucket[i];
		tell(w, "_bucket", &le, 1, (double)n);
	}
	tell(w, "_sum", NULL, 0, (double)h->sum_ms / 1000);
	tell(w, "_count", NULL, 0, (double)n);
}

/* ---- requests by operation and outcome ---- */

#define BIT(outcome) (1u << (int)(outcome))
#define ERROR(error) BIT((int)OUTCOME_ERROR + (int)(error))
_Static_assert(OUTCOME_N <= 31, "a bit for each outcome");

/* Shown from the start, so that the first of a kind is seen as an increase. Others are shown once
 * they have occurred. */
enum {
	SHOWN_LOCAL = BIT(OUTCOME_OK) | ERROR(REPLY_BAD_REQUEST),
	SHOWN_HELD = SHOWN_LOCAL | BIT(OUTCOME_ABANDONED) | ERROR(REPLY_FORBIDDEN) |
		     ERROR(REPLY_UPSTREAM_DOWN) | ERROR(REPLY_QUEUE_FULL) |
		     ERROR(REPLY_SHUTTING_DOWN),
	SHOWN_REMOTE = SHOWN_HELD | BIT(OUTCOME_SERVICE_ERROR) | ERROR(REPLY_TOO_LARGE) |
		       ERROR(REPLY_RATE_LIMITED) | ERROR(REPLY_TIMEOUT) |
		       ERROR(REPLY_OUTCOME_UNKNOWN) | ERROR(REPLY_BAD_UPSTREAM),
	SHOWN_UNKNOWN = ERROR(REPLY_BAD_JSON) | ERROR(REPLY_BAD_REQUEST) | ERROR(REPLY_UNKNOWN_OP) |
			ERROR(REPLY_TOO_LARGE),
};

static unsigned shown_at_once(unsigned op)
{
	if (op == 0)
		return SHOWN_UNKNOWN;
	if (request_op_is_remote((enum request_op)op))
		return SHOWN_REMOTE;
	return op == OP_SUBSCRIBE || op == OP_TOKEN ? SHOWN_HELD : SHOWN_LOCAL;
}

static const char *outcome_name(unsigned outcome)
{
	static const char *const names[] = {"ok", "service_error", "abandoned"};
	_Static_assert(sizeof(names) / sizeof(names[0]) == OUTCOME_ERROR,
		       "a name for each that is no error of ours");

	return outcome < OUTCOME_ERROR
		       ? names[outcome]
		       : reply_error_reason((enum reply_error)(outcome - OUTCOME_ERROR));
}

static void tell_ended(struct walk *w, const struct stats *s)
{
	begin(w, "hpkvd_requests_ended_total", STATS_COUNTER,
	      "requests that have ended, by operation and outcome");
	for (unsigned op = 0; op < OP_N; op++) {
		for (unsigned outcome = 0; outcome < OUTCOME_N; outcome++) {
			uint64_t n = s->ended[op][outcome];
			struct stats_label labels[] = {
				{"op", op ? request_op_name((enum request_op)op) : "unknown"},
				{"outcome", outcome_name(outcome)},
			};
			if (n || shown_at_once(op) & BIT(outcome))
				tell(w, "", labels, 2, (double)n);
		}
	}
}

static void tell_state(struct walk *w, const struct stats_gauges *g)
{
	begin(w, "hpkvd_upstream_state", STATS_GAUGE,
	      "1 for the state in which the connection to the service is, 0 for the others");
	for (size_t i = 0; i < g->n_states; i++) {
		struct stats_label state = {"state", g->states[i]};
		tell(w, "", &state, 1, i == g->state);
	}
}

const char *stats_door_name(enum stats_door door)
{
	static const char *const names[] = {"lines", "http", "websocket"};
	_Static_assert(sizeof(names) / sizeof(names[0]) == STATS_DOOR_N, "a name for each door");

	return names[door];
}

static void tell_doors(struct walk *w, const struct stats *s, const struct stats_gauges *g)
{
	begin(w, "hpkvd_door_clients", STATS_GAUGE, "local clients, by what they speak");
	for (int i = 0; i < STATS_DOOR_N; i++) {
		struct stats_label door = {"door", stats_door_name((enum stats_door)i)};
		tell(w, "", &door, 1, g->door_clients[i]);
	}
	begin(w, "hpkvd_door_requests_total", STATS_COUNTER,
	      "requests read, well-formed or not, by what the client speaks");
	for (int i = 0; i < STATS_DOOR_N; i++) {
		struct stats_label door = {"door", stats_door_name((enum stats_door)i)};
		tell(w, "", &door, 1, (double)s->door_requests[i]);
	}
}

#define STATS_TELL(name, type, suffix, help)                                                       \
	static double section_##name(const struct stats_section *s)                                \
	{                                                                                          \
		return s->name;                                                                    \
	}
STATS_SECTION(STATS_TELL)
#undef STATS_TELL

static void tell_sections(struct walk *w, const struct stats_gauges *g, const char *name,
			  enum stats_type type, const char *help,
			  double (*value)(const struct stats_section *s))
{
	begin(w, name, type, help);
	for (size_t i = 0; i < g->n_sections; i++) {
		struct stats_label section = {"section", g->sections[i].name};
		tell(w, "", &section, 1, value(&g->sections[i]));
	}
}

static void tell_section_refusals(struct walk *w, const struct stats_gauges *g)
{
	static const enum reply_error reasons[STATS_REFUSALS] = {
		REPLY_RATE_LIMITED, REPLY_QUEUE_FULL, REPLY_TOO_MANY_CLIENTS};

	begin(w, "hpkvd_access_refused_total", STATS_COUNTER,
	      "what was refused because of the budget of an access section");
	for (size_t i = 0; i < g->n_sections; i++) {
		for (size_t k = 0; k < STATS_REFUSALS; k++) {
			struct stats_label labels[] = {{"section", g->sections[i].name},
						       {"reason", reply_error_reason(reasons[k])}};
			tell(w, "", labels, 2, g->sections[i].refused[k]);
		}
	}
}

void stats_walk(const struct stats *s, const struct stats_gauges *g,
		const struct stats_visitor *visitor, void *owner)
{
	static const struct stats_label version = {"version", PACKAGE_VERSION};
	struct walk w = {.visitor = visitor, .owner = owner};

	begin(&w, "hpkvd_build_info", STATS_GAUGE, "always 1; the version of the program");
	tell(&w, "", &version, 1, 1);
	tell_state(&w, g);
#define STATS_TELL(name, type, help) tell_one(&w, "hpkvd_" #name, type, help, g->name);
	STATS_GAUGES(STATS_TELL)
#undef STATS_TELL
	tell_doors(&w, s, g);
	tell_ended(&w, s);
#define STATS_TELL(name, type, suffix, help)                                                       \
	tell_sections(&w, g, "hpkvd_access_" suffix, type, help, section_##name);
	STATS_SECTION(STATS_TELL)
#undef STATS_TELL
	tell_section_refusals(&w, g);
#define STATS_TELL(name, help) tell_histogram(&w, "hpkvd_" #name "_seconds", help, &s->name);
	STATS_HISTOGRAMS(STATS_TELL)
#undef STATS_TELL
#define STATS_TELL(name, help)                                                                     \
	tell_one(&w, "hpkvd_" #name "_total", STATS_COUNTER, help, (double)s->name);
	STATS_TABLE(STATS_TELL)
#undef STATS_TELL
#define STATS_TELL(name, type, help) tell_one(&w, #name, type, help, g->name);
	STATS_PROCESS(STATS_TELL)
#undef STATS_TELL
}
