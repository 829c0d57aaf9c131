/* metrics_text.h - the figures as text: the metrics page, and the stats answer that says the same.
 *
 * The page is the Prometheus text exposition format, version 0.0.4. The answer is one flat JSON
 * object in which each sample has the name and the value, digit for digit, that it has on the page:
 * {"hpkvd_clients":1,"hpkvd_requests_ended_total{op=\"get\",outcome=\"ok\"}":7}. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "codec/stats.h"

#define METRICS_TEXT_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Each appends to *out; the JSON has no line end. */
void metrics_text_write(const struct stats *s, const struct stats_gauges *g, struct buf *out);
void metrics_text_write_json(const struct stats *s, const struct stats_gauges *g, struct buf *out);

/* The visitors of stats_walk() behind these, for whoever has other samples: owner is a struct buf
 * for the first, a struct metrics_text_json for the second. */
struct metrics_text_json {
	struct buf *out;
	struct buf name; /* own: of the sample that is being written */
	bool behind;     /* another member stands before */
};
extern const struct stats_visitor page_text_visitor, page_json_visitor;
