/* metrics_text.h - the figures as text: the metrics page, and the stats answer.
 *
 * The page is the Prometheus text exposition format, version 0.0.4. The answer is one flat
 * JSON object with the samples of the page, their names and values the same digit for digit:
 * {"hpkvd_clients":1,"hpkvd_requests_ended_total{op=\"get\",outcome=\"ok\"}":7}. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "codec/stats.h"

#define METRICS_TEXT_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Each appends to *out; the JSON has no line end. */
void metrics_text_write(const struct stats *s, const struct stats_gauges *g, struct buf *out);
void metrics_text_write_json(const struct stats *s, const struct stats_gauges *g, struct buf *out);

/* The visitors for stats_walk() behind these, for other samples. owner is a struct buf for the
 * first, a struct metrics_text_json for the second. */
struct metrics_text_json {
	struct buf *out;
	struct buf name; /* own: of the sample that is being written */
	bool behind;     /* a member was written before */
};
extern const struct stats_visitor page_text_visitor, page_json_visitor;
