/* stats.h - the figures of the daemon: counters since the start, and the present state.
 *
 * The tables below are the only place that names a figure; the metrics page and the stats answer
 * walk them (metrics_text.h). Each room counts its own events. Gauges are collected from the rooms
 * when they are asked for (struct stats_gauges). Labels are enumerations, and the names of access
 * sections, so their number is bounded. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "codec/reply.h"
#include "codec/request.h"

/* What is spoken on a local connection. */
enum stats_door { STATS_DOOR_LINES, STATS_DOOR_HTTP, STATS_DOOR_WEBSOCKET, STATS_DOOR_N };

enum stats_type { STATS_COUNTER, STATS_GAUGE, STATS_HISTOGRAM, STATS_TYPE_N };

/* Counters: field, help. The name is hpkvd_FIELD_total. */
#define STATS_TABLE(X)                                                                             \
	X(clients_accepted, "local connections accepted")                                          \
	X(clients_refused,                                                                         \
	  "local connections refused, or closed without a key, because of max_clients")            \
	X(clients_dropped_slow, "local clients dropped at output_hard")                            \
	X(accept_pauses, "times accepting paused because no file descriptor was left")             \
	X(client_bytes_in, "bytes read from local clients")                                        \
	X(client_bytes_out, "bytes written to local clients")                                      \
	X(client_reads_held, "times a client was not read further (max_pipeline, output, queue)")  \
	X(requests, "requests read, well-formed or not")                                           \
	X(http_refused, "HTTP requests answered with an error before they became requests")        \
	X(requests_refused, "requests refused: the line or a member is wrong, or it is forbidden") \
	X(requests_forbidden, "requests that the access rules forbid")                             \
	X(requests_sent, "request frames sent to the service, repeats included")                   \
	X(requests_resent, "gets and ranges sent again after a lost connection")                   \
	X(requests_answered, "answers of the service passed to a client")                          \
	X(requests_timeout, "requests sent, but not answered in their time")                       \
	X(requests_unsent, "requests whose time was up while they waited to be sent")              \
	X(requests_refused_early,                                                                  \
	  "requests refused at once, since the pace would not let them go "                        \
	  "within their time")                                                                     \
	X(requests_outcome_unknown, "writes whose connection was lost before the answer came, "    \
				    "and reads that were not repeated")                            \
	X(requests_queue_full, "requests refused because too much was waiting")                    \
	X(requests_too_long, "requests refused because they are longer than max_frame, or than "   \
			     "what the service has closed a connection over")                      \
	X(requests_abandoned, "requests dropped unsent because their client had gone")             \
	X(upstream_connects, "upstream connections opened")                                        \
	X(upstream_connect_failures, "attempts to connect that failed")                            \
	X(upstream_disconnects, "upstream connections lost")                                       \
	X(upstream_blamed, "upstream connections lost, maybe over a request")                      \
	X(upstream_messages_in, "messages received from the service")                              \
	X(upstream_bytes_in, "bytes of messages received from the service")                        \
	X(upstream_bytes_out, "bytes of messages sent to the service")                             \
	X(upstream_unusable, "messages of the service that could not be used")                     \
	X(upstream_refused, "requests that the service refused because of its rate limit (429)")   \
	X(upstream_late, "answers to no request that is waiting: late, repeated or unknown")       \
	X(upstream_notifications, "notifications received")                                        \
	X(upstream_pings, "pings sent")                                                            \
	X(upstream_handovers, "connections replaced as planned, without a gap")                    \
	X(upstream_handover_failures, "attempts to replace the connection that failed")            \
	X(upstream_doubles, "notifications that came by both connections during a handover: "      \
			    "delivered once")                                                      \
	X(tokens_minted, "tokens minted")                                                          \
	X(token_renewals, "tokens replaced because of their age")                                  \
	X(token_failures, "token requests that failed or were refused")                            \
	X(tokens_for_clients, "tokens minted for clients")                                         \
	X(subscribes, "subscribe requests that became live")                                       \
	X(subscribes_refused, "subscribe requests refused: no room, or the service refused them")  \
	X(subscriptions_forbidden, "subscriptions ended because the access rules have changed")    \
	X(lines_out, "notifications and other unasked lines put into clients' output")             \
	X(notifications_unwanted, "notifications that no client is subscribed to")                 \
	X(notifications_conflated, "notifications replaced by a later one for a slow client")      \
	X(gaps, "times that changes may have been missed, once for each pattern or key")           \
	X(rereads, "keys read by the daemon itself: initial values, and after a lost connection")  \
	X(cache_hits, "gets and ranges answered from memory")                                      \
	X(cache_misses, "gets and ranges of what [cache] names that were asked of the service")    \
	X(cache_stale_hits, "answers from memory while the connection was down")                   \
	X(cache_invalidations,                                                                     \
	  "remembered values that were given up, since they may have changed")                     \
	X(cache_rereads, "keys of mirrors read again because they had changed")                    \
	X(combined, "requests that went along with another for the same key")                      \
	X(requests_saved, "requests that were not sent: answered from memory, or combined")        \
	X(resyncs, "clients told a value that had changed while the connection was lost")

/* Histograms of seconds: field, help. The name is hpkvd_FIELD_seconds. */
#define STATS_HISTOGRAMS(X)                                                                        \
	X(request_wait, "time that a request waited here, each time that it was sent")             \
	X(request_service, "time from sending a request to the answer of the service")

/* Gauges: field, type, help. The name is hpkvd_FIELD. */
#define STATS_GAUGES(X)                                                                            \
	X(upstream_state_seconds, STATS_GAUGE, "time in the present state")                        \
	X(upstream_reconnects_total, STATS_COUNTER, "connections made after one was lost")         \
	X(upstream_token_expiry_seconds, STATS_GAUGE,                                              \
	  "time until the token in use expires; none is in use if this is missing")                \
	X(upstream_output_bytes, STATS_GAUGE,                                                      \
	  "bytes for the service that the network has not taken yet")                              \
	X(upstream_pace_requests_per_second, STATS_GAUGE,                                          \
	  "requests that may be sent in a second; there is no limit if this is missing")           \
	X(requests_waiting, STATS_GAUGE, "requests that wait to be sent")                          \
	X(requests_waiting_bytes, STATS_GAUGE, "memory of the requests that wait to be sent")      \
	X(requests_in_flight, STATS_GAUGE, "requests that were sent and are not answered")         \
	X(requests_in_flight_max, STATS_GAUGE, "the setting max_in_flight")                        \
	X(clients, STATS_GAUGE, "local clients")                                                   \
	X(clients_tcp, STATS_GAUGE, "local clients that have come over TCP")                       \
	X(clients_max, STATS_GAUGE, "the setting max_clients")                                     \
	X(clients_held, STATS_GAUGE, "clients that are not read further at present")               \
	X(clients_lagging, STATS_GAUGE,                                                            \
	  "clients that read too slowly and are told only the latest change of each key")          \
	X(client_input_bytes, STATS_GAUGE, "bytes of clients that wait to be handled")             \
	X(client_output_bytes, STATS_GAUGE, "bytes for clients that they have not read yet")       \
	X(subscriptions, STATS_GAUGE, "subscriptions of all clients")                              \
	X(subscriptions_bytes, STATS_GAUGE, "memory of all subscriptions, about")                  \
	X(subscriptions_live, STATS_GAUGE, "1 while the service tells of changes, else 0")         \
	X(subscription_keys, STATS_GAUGE, "different keys that are subscribed to")                 \
	X(subscription_patterns, STATS_GAUGE, "different patterns that are subscribed to")         \
	X(subscriptions_left_out, STATS_GAUGE,                                                     \
	  "keys and patterns for which the token has no room")                                     \
	X(subscribes_waiting, STATS_GAUGE, "subscribe requests that are not live yet")             \
	X(config_last_reload_successful, STATS_GAUGE,                                              \
	  "1, or 0 if the settings of the last reload were refused")                               \
	X(cache_entries, STATS_GAUGE, "values and missing keys that are remembered")               \
	X(cache_bytes, STATS_GAUGE, "memory of these, as [cache] memory counts it")                \
	X(rereads_waiting, STATS_GAUGE, "keys that the daemon has yet to read itself")

/* The same for the process. The name is FIELD, as other exporters have it. */
#define STATS_PROCESS(X)                                                                           \
	X(process_start_time_seconds, STATS_GAUGE, "start of the process, in seconds since 1970")  \
	X(process_cpu_seconds_total, STATS_COUNTER, "user and system CPU time spent")              \
	X(process_resident_memory_bytes, STATS_GAUGE, "resident memory")                           \
	X(process_virtual_memory_bytes, STATS_GAUGE, "virtual memory")                             \
	X(process_open_fds, STATS_GAUGE, "open file descriptors")                                  \
	X(process_max_fds, STATS_GAUGE, "limit of open file descriptors")

/* How a request ended: hpkvd_requests_ended_total{op,outcome}. Errors are named by their
 * reasons. */
enum request_outcome {
	OUTCOME_OK,
	OUTCOME_SERVICE_ERROR, /* the service's answer is an error */
	OUTCOME_ABANDONED,     /* its client left before the answer */
	OUTCOME_ERROR,         /* from here on: outcome_of() */
	OUTCOME_N = OUTCOME_ERROR + (int)REPLY_N
};

static inline enum request_outcome outcome_of(enum reply_error error)
{
	return (enum request_outcome)((int)OUTCOME_ERROR + (int)error);
}

enum { HISTOGRAM_BUCKETS = 14 }; /* the last one has no upper bound */

struct histogram {
	uint64_t bucket[HISTOGRAM_BUCKETS]; /* not cumulative; cumulated when shown */
	uint64_t sum_ms;
};

/* A negative time counts as 0: clocks have different resolutions. */
void histogram_add(struct histogram *h, int64_t ms);

struct stats {
#define STATS_FIELD(name, help) uint64_t name;
	STATS_TABLE(STATS_FIELD)
#undef STATS_FIELD
#define STATS_FIELD(name, help) struct histogram name;
	STATS_HISTOGRAMS(STATS_FIELD)
#undef STATS_FIELD
	uint64_t door_requests[STATS_DOOR_N];
	uint64_t ended[OP_N][OUTCOME_N]; /* [0]: the operation is unknown */
};

const char *stats_door_name(enum stats_door door); /* "lines" … */

static inline void stats_ended(struct stats *s, enum request_op op, enum request_outcome outcome)
{
	s->ended[op][outcome]++;
}

enum { STATS_REFUSALS = 3 }; /* rate_limited, queue_full, too_many_clients */

/* Figures of an access section: field, type, name behind hpkvd_access_, help. */
#define STATS_SECTION(X)                                                                           \
	X(clients, STATS_GAUGE, "clients", "local clients of an access section")                   \
	X(clients_waiting, STATS_GAUGE, "clients_waiting",                                         \
	  "clients whose requests wait for room in the budget of their access section")            \
	X(requests_in_flight, STATS_GAUGE, "requests_in_flight",                                   \
	  "requests of an access section that were sent and are not answered")                     \
	X(subscriptions, STATS_GAUGE, "subscriptions",                                             \
	  "subscriptions of an access section, those that wait included")                          \
	X(requests, STATS_COUNTER, "requests_total",                                               \
	  "requests and tokens that an access section has paid for")

struct stats_section {
	const char *name;
#define STATS_FIELD(name, type, suffix, help) double name;
	STATS_SECTION(STATS_FIELD)
#undef STATS_FIELD
	double refused[STATS_REFUSALS];
};

/* NAN: there is no value now. */
struct stats_gauges {
#define STATS_FIELD(name, type, help) double name;
	STATS_GAUGES(STATS_FIELD)
	STATS_PROCESS(STATS_FIELD)
#undef STATS_FIELD
	double door_clients[STATS_DOOR_N];
	const char *const *states; /* names of the upstream states; the present one */
	size_t n_states, state;
	struct stats_section *sections; /* of the access rules */
	size_t n_sections;
};

struct stats_label {
	const char *name, *value;
};

/* Called before the samples of a family, of which there may be none. */
struct stats_visitor {
	void (*family)(void *owner, const char *name, const char *help, enum stats_type type);
	/* The name is family and suffix together. */
	void (*sample)(void *owner, const char *family, const char *suffix,
		       const struct stats_label *labels, size_t n_labels, double value);
};

void stats_walk(const struct stats *s, const struct stats_gauges *g,
		const struct stats_visitor *visitor, void *owner);
