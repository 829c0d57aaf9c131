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
	X(upstream_pings, "pings sent")                                                            \
	X(upstream_handovers, "connections replaced as planned, without a gap")                    \
	X(upstream_handover_failures, "attempts to replace the connection that failed")            \
	X(upstream_doubles, "notifications that came by both connections during a handover: "      \
			    "delivered once")                                                      \
	X(tokens_minted, "tokens minted")                                                          \
	X(token_failures, "token requests that failed or were refused")                            \
	X(subscribes, "subscribe requests that became live")                                       \
	X(subscribes_refused, "subscribe requests refused: no room, or the service refused them")  \
	X(lines_out, "notifications and other unasked lines put into clients' output")             \
	X(notifications_unwanted, "notifications that no client is subscribed to")                 \
	X(notifications_conflated, "notifications replaced by a later one for a slow client")      \
	X(gaps, "times that changes may have been missed, once for each pattern or key")           \
	X(rereads, "keys read by the daemon itself: initial values, and after a lost connection")  \
	X(resyncs, "clients told a value that had changed while the connection was lost")

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
