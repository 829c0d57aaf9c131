#include "decode.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static const struct span names[] = {
	[DECODE_ID] = SPAN("messageId"),        [DECODE_CODE] = SPAN("code"),
	[DECODE_ERROR] = SPAN("error"),         [DECODE_MESSAGE] = SPAN("message"),
	[DECODE_REASON] = SPAN("reason"),       [DECODE_EXECUTED] = SPAN("executed"),
	[DECODE_RETRY] = SPAN("retryAfterMs"),  [DECODE_KEY] = SPAN("key"),
	[DECODE_VALUE] = SPAN("value"),         [DECODE_NEW_VALUE] = SPAN("newValue"),
	[DECODE_TOKEN] = SPAN("token"),         [DECODE_RECORDS] = SPAN("records"),
	[DECODE_TRUNCATED] = SPAN("truncated"), [DECODE_TYPE] = SPAN("type"),
	[DECODE_PATTERN] = SPAN("pattern"),     [DECODE_STATE] = SPAN("state"),
	[DECODE_TIMESTAMP] = SPAN("timestamp"), [DECODE_SINCE] = SPAN("since"),
	[DECODE_UNTIL] = SPAN("until"),         [DECODE_SKIPPED] = SPAN("skipped"),
	[DECODE_INITIAL] = SPAN("initial"),     [DECODE_RESYNC] = SPAN("resync"),
};
_Static_assert(sizeof(names) / sizeof(names[0]) == DECODE_N, "a name for each member");

bool decode_line(struct span line, struct decoded *d)
{
	struct json_object_reader reader;
	struct json_member member;
	int result;

	*d = (struct decoded){.line = line};
	json_object_begin(&reader, line);
	while ((result = json_object_next(&reader, &member)) > 0) {
		size_t which = json_string_find(&member.name, names, DECODE_N);
		if (which == DECODE_N)
			continue;
		d->members[which] = member.value;
		if (which == DECODE_ID)
			d->id = member.whole;
	}
	return result == 0;
}

/* ---- members as values ---- */

static int64_t number(const struct decoded *d, enum decode_member which, int64_t otherwise)
{
	const struct json_value *v = &d->members[which];
	int64_t value;

	if (v->text.p && v->type == JSON_NUMBER &&
	    json_number_integer(v, INT64_MIN, INT64_MAX, &value))
		return value;
	return otherwise;
}

static bool is_true(const struct decoded *d, enum decode_member which)
{
	return d->members[which].text.p && d->members[which].type == JSON_TRUE;
}

static bool is_word(const struct decoded *d, enum decode_member which, struct span word)
{
	const struct json_value *v = &d->members[which];

	return v->text.p && v->type == JSON_STRING && json_string_is(v, word);
}

uint64_t decode_id(const struct decoded *d)
{
	int64_t id = number(d, DECODE_ID, 0);

	return id > 0 ? (uint64_t)id : 0;
}

bool decode_is_farewell(const struct decoded *d)
{
	return !d->members[DECODE_TYPE].text.p && !d->id.p && d->members[DECODE_CODE].text.p &&
	       number(d, DECODE_CODE, 0) != 200;
}

bool decode_is_outcome_unknown(const struct decoded *d)
{
	return is_word(d, DECODE_REASON, SPAN("outcome_unknown"));
}

bool decode_is_shutting_down(const struct decoded *d)
{
	return is_word(d, DECODE_REASON, SPAN("shutting_down")) &&
	       (d->id.p ? is_word(d, DECODE_EXECUTED, SPAN("no"))
			: is_word(d, DECODE_TYPE, SPAN("connection")));
}

/* ---- memory ---- */

enum { KEPT_SIZE = 1 << 20 };

/* Makes room for everything that the line can become: each of its strings loses two quotes and
 * gains a NUL. Memory for a long line is not kept for short ones. */
static bool make_room(struct decode_store *s, size_t n)
{
	s->n = 0;
	if (s->size >= n && (s->size <= KEPT_SIZE || n > s->size / 4))
		return true;
	char *p = malloc(n);
	if (!p)
		return false;
	free(s->bytes);
	s->bytes = p;
	s->size = n;
	return true;
}

static struct hpkv_bytes keep(struct decode_store *s, struct span bytes)
{
	char *p = s->bytes + s->n;

	if (bytes.n)
		memcpy(p, bytes.p, bytes.n);
	p[bytes.n] = '\0';
	s->n += bytes.n + 1;
	return (struct hpkv_bytes){p, bytes.n};
}

/* Stores a decoded string; any other value as its text; null or a missing member as nothing. */
static struct hpkv_bytes keep_value(struct decode_store *s, const struct json_value *v)
{
	char *p = s->bytes + s->n;

	if (!v->text.p || v->type == JSON_NULL)
		return (struct hpkv_bytes){0};
	if (v->type != JSON_STRING)
		return keep(s, v->text);
	size_t n = json_string_decode(v, p);
	p[n] = '\0';
	s->n += n + 1;
	return (struct hpkv_bytes){p, n};
}

/* Stores a sentence: a NUL within would end it and becomes a space. */
static const char *keep_string(struct decode_store *s, const struct json_value *v)
{
	size_t start = s->n;
	struct hpkv_bytes bytes = keep_value(s, v);

	for (size_t i = start; bytes.p && i < start + bytes.n; i++) {
		if (!s->bytes[i])
			s->bytes[i] = ' ';
	}
	return bytes.p ? bytes.p : "";
}

void decode_free(struct decode_store *s)
{
	free(s->bytes);
	free(s->records);
	*s = (struct decode_store){0};
}

/* ---- answers ---- */

/* Bytes that numbers and words may need beyond their own text: a NUL for each member that is
 * stored. Records have two values each. */
enum { NULS = 16 };

/* Reads the next record of an answer. Elements without a key are skipped, and take no memory. */
static bool next_record(struct json_array_reader *array, struct json_value record[2])
{
	static const struct span members[] = {SPAN("key"), SPAN("value")};
	struct json_object_reader reader;
	struct json_value text;
	struct json_member m;

	while (json_array_next(array, &text) > 0) {
		record[0] = record[1] = (struct json_value){.type = JSON_NULL};
		json_object_begin(&reader, text.text);
		while (json_object_next(&reader, &m) > 0) {
			size_t which = json_string_find(&m.name, members, 2);
			if (which < 2 && !record[which].text.p)
				record[which] = m.value;
		}
		if (record[0].type == JSON_STRING)
			return true;
	}
	return false;
}

static size_t count_records(const struct json_value *records)
{
	struct json_array_reader array;
	struct json_value record[2];
	size_t n = 0;

	json_array_begin(&array, records);
	while (next_record(&array, record))
		n++;
	return n;
}

static bool read_records(struct decode_store *s, const struct json_value *records, size_t n)
{
	struct json_array_reader array;
	struct json_value record[2];

	if (n > s->n_records || s->n_records * sizeof(*s->records) > KEPT_SIZE) {
		struct hpkv_record *more =
			n > SIZE_MAX / sizeof(*more) ? NULL : malloc(n * sizeof(*more));
		if (!more)
			return false;
		free(s->records);
		s->records = more;
		s->n_records = n;
	}
	json_array_begin(&array, records);
	for (size_t i = 0; i < n && next_record(&array, record); i++) {
		s->records[i].key = keep_value(s, &record[0]);
		s->records[i].value = keep_value(s, &record[1]);
	}
	s->answer.records = s->records;
	s->answer.n_records = n;
	return true;
}

static void append(struct decode_store *s, struct span bytes)
{
	keep(s, bytes);
	s->n--; /* the next append overwrites the NUL */
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Appends a messageId as the last member of the object at the end of the store. */
static void append_id(struct decode_store *s, struct span id)
{
	while (s->bytes[s->n - 1] != '}')
		s->n--;
	do {
		s->n--;
	} while (is_space(s->bytes[s->n - 1]));
	if (s->bytes[s->n - 1] != '{')
		append(s, SPAN(","));
	append(s, SPAN("\"messageId\":"));
	append(s, id);
	append(s, SPAN("}"));
}

/* Stores the line without the library's messageId, with the user's at its end. */
static struct hpkv_bytes keep_line(struct decode_store *s, const struct decoded *d,
				   struct span user_id)
{
	struct span line = d->line, before = line, after = {0};
	size_t start = s->n;

	if (d->id.p) {
		const char *cut = d->id.p, *end = d->id.p + d->id.n;
		while (cut > line.p && is_space(cut[-1]))
			cut--;
		if (cut[-1] == ',')
			cut--;
		else /* it is the first member: drop the comma after it */
			while (end < line.p + line.n && (is_space(*end) || *end == ','))
				end++;
		before.n = (size_t)(cut - line.p);
		after = (struct span){end, (size_t)(line.p + line.n - end)};
	}
	append(s, before);
	append(s, after);
	if (user_id.n)
		append_id(s, user_id);
	s->bytes[s->n++] = '\0';
	return (struct hpkv_bytes){s->bytes + start, s->n - 1 - start};
}

static enum hpkv_result result_of(const struct decoded *d, int code, bool repeatable)
{
	bool unknown = is_word(d, DECODE_EXECUTED, SPAN("unknown"));

	if (code >= 200 && code < 300)
		return HPKV_OK;
	if (code == 404)
		return HPKV_NOT_FOUND;
	if (unknown || !code)
		return repeatable ? HPKV_UNAVAILABLE : HPKV_UNKNOWN;
	if (code == 429 || (code == 503 && d->members[DECODE_REASON].text.p))
		return HPKV_UNAVAILABLE;
	return HPKV_REFUSED;
}

static void no_memory(struct decode_store *s, bool repeatable)
{
	/* The answer can't be stored: the outcome of a write is unknown. */
	decode_failure(s, repeatable ? HPKV_NO_MEMORY : HPKV_UNKNOWN, "no memory for the answer");
}

void decode_failure(struct decode_store *s, enum hpkv_result result, const char *error)
{
	snprintf(s->failure, sizeof(s->failure), "%s", error);
	s->answer = (struct hpkv_answer){
		.result = result,
		.error = s->failure,
		.reason = "",
		.retry_after_ms = -1,
		.line = {"", 0},
	};
}

static const struct json_value *value_of(const struct decoded *d)
{
	static const enum decode_member order[] = {DECODE_NEW_VALUE, DECODE_TOKEN, DECODE_VALUE};

	for (unsigned i = 0; i < 3; i++) {
		if (d->members[order[i]].text.p)
			return &d->members[order[i]];
	}
	return &d->members[DECODE_VALUE];
}

static const char *error_of(struct decode_store *s, const struct decoded *d)
{
	const char *error = keep_string(s, &d->members[DECODE_ERROR]);

	if (!*error)
		error = keep_string(s, &d->members[DECODE_MESSAGE]);
	return *error ? error : "an answer that does not say what went wrong";
}

void decode_answer(struct decode_store *s, const struct decoded *d, bool repeatable,
		   struct span user_id)
{
	const struct json_value *records = &d->members[DECODE_RECORDS];
	size_t n = records->text.p && records->type == JSON_ARRAY ? count_records(records) : 0;
	int64_t retry = number(d, DECODE_RETRY, -1), code = number(d, DECODE_CODE, 0);

	/* Room for the line and, once more, for its strings. */
	if (!make_room(s, 2 * d->line.n + user_id.n + 2 * n + 64 + NULS)) {
		no_memory(s, repeatable);
		return;
	}
	decode_failure(s, HPKV_OK, "");
	s->answer.code = code > 0 && code < 1000 ? (int)code : 0;
	s->answer.result = result_of(d, s->answer.code, repeatable);
	if (s->answer.result)
		s->answer.error = error_of(s, d);
	s->answer.reason = keep_string(s, &d->members[DECODE_REASON]);
	s->answer.retry_after_ms = retry >= 0 && retry < INT_MAX ? (int)retry : -1;
	s->answer.value = keep_value(s, value_of(d));
	s->answer.truncated = is_true(d, DECODE_TRUNCATED);
	if (n && !read_records(s, records, n)) {
		no_memory(s, repeatable);
		return;
	}
	s->answer.line = keep_line(s, d, user_id);
}

/* ---- events ---- */

static enum hpkv_event_type type_of(const struct decoded *d)
{
	if (is_word(d, DECODE_TYPE, SPAN("notification")))
		return HPKV_EVENT_CHANGE;
	if (is_word(d, DECODE_TYPE, SPAN("gap")))
		return HPKV_EVENT_GAP;
	if (is_word(d, DECODE_TYPE, SPAN("unsubscribed")))
		return HPKV_EVENT_DROPPED;
	if (is_word(d, DECODE_TYPE, SPAN("connection"))) {
		if (is_word(d, DECODE_STATE, SPAN("connected")))
			return HPKV_EVENT_UPSTREAM_BACK;
		if (is_word(d, DECODE_STATE, SPAN("disconnected")))
			return HPKV_EVENT_UPSTREAM_LOST;
	}
	return HPKV_EVENT_OTHER;
}

bool decode_event(struct decode_store *s, const struct decoded *d)
{
	int64_t skipped = number(d, DECODE_SKIPPED, 0);

	if (!make_room(s, 2 * d->line.n + 64 + NULS))
		return false;
	s->event = (struct hpkv_event){
		.type = type_of(d),
		.flags = (is_true(d, DECODE_INITIAL) ? HPKV_INITIAL : 0u) |
			 (is_true(d, DECODE_RESYNC) ? HPKV_RESYNC : 0u),
		.key = keep_value(s, &d->members[DECODE_KEY]),
		.value = keep_value(s, &d->members[DECODE_VALUE]),
		.pattern = keep_value(s, &d->members[DECODE_PATTERN]),
		.timestamp = number(d, DECODE_TIMESTAMP, 0),
		.since = number(d, DECODE_SINCE, 0),
		.until = number(d, DECODE_UNTIL, 0),
		.skipped = skipped > 0 ? (uint64_t)skipped : 0,
		.text = keep_string(s, &d->members[DECODE_ERROR]),
	};
	if (s->event.type == HPKV_EVENT_DROPPED && !*s->event.text)
		s->event.text = is_word(d, DECODE_REASON, SPAN("forbidden"))
					? "the access rules have changed, and forbid it"
					: keep_string(s, &d->members[DECODE_REASON]);
	s->event.line = keep(s, d->line);
	return true;
}
