/* status.h - the answers to status and stats, and the metrics page: what the daemon is doing, and
 * what it has counted.
 *
 * Cold, so cJSON writes the status. Its names are the local protocol's, those of the figures are in
 * stats.h; no secret has a place among them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "client.h"
#include "config.h"
#include "feed.h"
#include "router.h"
#include "stats.h"
#include "upstream.h"

struct status_source {
	const struct config *config;
	const struct router *router;
	const struct feed *feed;
	const struct upstream *upstream;
	const struct stats *stats;
	const struct clients *clients;
	const struct peer *peer; /* who asks; NULL: nobody in particular */
	int64_t now_ms, uptime_ms;
	int64_t started_wall_ms;
	bool misconfigured;                /* the last reload was refused */
	const struct client_activity *top; /* the busiest clients; NULL: nobody asked */
	unsigned n_top;
};

/* Each appends one JSON object on one line, without a line end. */
void status_write(const struct status_source *s, struct buf *out);
void status_write_stats(const struct status_source *s, struct buf *out);
/* Appends the page that says the same (page.h). */
void status_write_page(const struct status_source *s, struct buf *out);
