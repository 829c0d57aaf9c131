/* stats.h - what has happened since the start, counted once, in one table.
 *
 * The table is the only place that names a counter: the stats answer walks it.
 * Everything is a count that only grows; what goes up and down is in the status answer. */
#pragma once

#include <stdint.h>

/* field, what it counts */
#define STATS_TABLE(X)                                                                             \
	X(clients_accepted, "local connections accepted")                                          \
	X(clients_refused, "local connections refused because of max_clients")                     \
	X(clients_dropped_slow, "local clients dropped at output_hard")                            \
	X(accept_pauses, "times accepting paused for want of file descriptors")                    \
	X(client_bytes_in, "bytes read from local clients")                                        \
	X(client_bytes_out, "bytes written to local clients")                                      \
	X(client_reads_held, "times a client was not read further (max_pipeline, output, queue)")  \
	X(requests, "requests read, well-formed or not")                                           \
	X(requests_refused, "requests refused: the line or a member is wrong, or it is forbidden") \
	X(requests_sent, "request frames sent to the service, repeats included")                   \
	X(requests_resent, "gets and ranges sent again after a lost connection")                   \
	X(requests_answered, "answers of the service passed to a client")                          \
	X(requests_timeout, "requests sent, but not answered in their time")                       \
	X(requests_unsent, "requests whose time was up while they waited to be sent")              \
	X(requests_outcome_unknown, "writes whose connection was lost before the answer came, "    \
				    "and reads that were not repeated")                            \
	X(requests_queue_full, "requests refused because too much was waiting")                    \
	X(requests_abandoned, "requests dropped unsent because their client had gone")             \
	X(upstream_connects, "upstream connections opened")                                        \
	X(upstream_connect_failures, "attempts to connect that failed")                            \
	X(upstream_disconnects, "upstream connections lost")                                       \
	X(upstream_messages_in, "messages received from the service")                              \
	X(upstream_bytes_in, "bytes of messages received from the service")                        \
	X(upstream_bytes_out, "bytes of messages sent to the service")                             \
	X(upstream_unusable, "messages of the service that could not be used")                     \
	X(upstream_refused, "requests that the service refused because of its rate limit (429)")   \
	X(upstream_late, "answers to no request that is waiting: late, repeated or unknown")       \
	X(upstream_notifications, "notifications received")                                        \
	X(upstream_pings, "keepalive pings sent")

struct stats {
#define STATS_FIELD(name, help) uint64_t name;
	STATS_TABLE(STATS_FIELD)
#undef STATS_FIELD
};

struct stats_row {
	const char *name; /* "hpkvd_requests_sent_total": as in the stats answer */
	const char *help;
	uint64_t value;
};

/* Row i of the table with its present value; 0 after the last one. */
int stats_row(const struct stats *s, unsigned i, struct stats_row *row);
