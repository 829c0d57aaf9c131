#include "subscriptions/events.h"

#include <inttypes.h>

#include "codec/json.h"

static const char *const reason_names[] = {"initial", "resync"};
_Static_assert(sizeof(reason_names) / sizeof(reason_names[0]) == EVENTS_REASON_N,
	       "a name for each reason");

size_t events_change_max(const struct wire_frame *frame)
{
	return frame->text.n + 1;
}

size_t events_change(const struct wire_frame *frame, char *out)
{
	memcpy(out, frame->text.p, frame->text.n);
	if (frame->newline)
		wire_flatten(out, frame->text.n);
	out[frame->text.n] = '\n';
	return frame->text.n + 1;
}

void events_skipped(struct buf *out, struct span line, uint64_t n)
{
	/* Behind the object there can be nothing but white space. */
	while (line.n && line.p[line.n - 1] != '}')
		line.n--;
	buf_add(out, line.p, line.n - 1);
	buf_addf(out, ",\"skipped\":%" PRIu64 "}\n", n);
}

void events_value(struct buf *out, struct span key, struct span value, int64_t timestamp,
		  enum events_reason reason)
{
	buf_addf(out, "{\"type\":\"notification\",\"key\":");
	json_add_string(out, key);
	buf_addf(out, ",\"value\":");
	if (value.n)
		buf_add(out, value.p, value.n);
	else
		buf_addf(out, "null");
	buf_addf(out, ",\"timestamp\":%" PRId64 ",\"%s\":true}\n", timestamp, reason_names[reason]);
}

void events_pattern_gap(struct buf *out, struct span pattern, int64_t since, int64_t until)
{
	buf_addf(out, "{\"type\":\"gap\",\"pattern\":");
	json_add_string(out, pattern);
	buf_addf(out, ",\"since\":%" PRId64 ",\"until\":%" PRId64 "}\n", since, until);
}

void events_key_gap(struct buf *out, struct span key)
{
	buf_addf(out, "{\"type\":\"gap\",\"key\":");
	json_add_string(out, key);
	buf_addf(out, "}\n");
}

void events_unsubscribed(struct buf *out, bool pattern, struct span name, int64_t timestamp)
{
	buf_addf(out, "{\"type\":\"unsubscribed\",\"%s\":", pattern ? "pattern" : "key");
	json_add_string(out, name);
	buf_addf(out, ",\"reason\":\"forbidden\",\"timestamp\":%" PRId64 "}\n", timestamp);
}

void events_shutting_down(struct buf *out, int64_t timestamp)
{
	buf_addf(out,
		 "{\"type\":\"connection\",\"state\":\"disconnected\",\"reason\":\"shutting_down\","
		 "\"timestamp\":%" PRId64 "}\n",
		 timestamp);
}

void events_connection(struct buf *out, const char *state, int64_t timestamp)
{
	buf_addf(out, "{\"type\":\"connection\",\"state\":\"%s\",\"timestamp\":%" PRId64 "}\n",
		 state, timestamp);
}
