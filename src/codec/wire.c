#include "codec/wire.h"

/* --- requests --- */

/* Where text is written to. It is known to be large enough. */
struct pen {
	char *at;
};

static void put(struct pen *pen, struct span text)
{
	memcpy(pen->at, text.p, text.n);
	pen->at += text.n;
}

static void put_number(struct pen *pen, uint64_t number)
{
	char digits[20];
	size_t i = sizeof(digits);

	do
		digits[--i] = (char)('0' + number % 10);
	while (number /= 10);
	put(pen, (struct span){digits + i, sizeof(digits) - i});
}

size_t wire_head(char out[WIRE_HEAD_MAX], uint64_t id)
{
	struct pen pen = {out};

	put(&pen, SPAN("{\"messageId\":"));
	put_number(&pen, id);
	*pen.at++ = ',';
	return (size_t)(pen.at - out);
}

/* What wire_body() writes itself of a member that is given. */
static size_t own_of(const struct json_value *v, struct span own)
{
	return v->text.p ? own.n : 0;
}

size_t wire_body_max(const struct request *r)
{
	/* Each character of a value may have to be escaped. */
	size_t value = r->value.type == JSON_STRING ? r->value.text.n : 2 * r->value.text.n;

	size_t own = sizeof("\"op\":6,\"key\":}") - 1 + own_of(&r->end_key, SPAN(",\"endKey\":")) +
		     own_of(&r->limit, SPAN(",\"limit\":")) +
		     own_of(&r->value, SPAN(",\"value\":\"\""));
	if (r->op == OP_INCREMENT && !r->value.text.p)
		own += sizeof(",\"value\":1") - 1;
	return own + r->key.text.n + r->end_key.text.n + value + r->limit.text.n;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Writes a JSON text as the inside of a JSON string. White space between its tokens is dropped;
 * white space in its strings is kept. */
static void put_as_string(struct pen *pen, const struct json_value *v)
{
	bool in_string = false;
	char *to = pen->at;

	*to++ = '"';
	for (size_t i = 0; i < v->text.n; i++) {
		char c = v->text.p[i];
		if (!in_string && is_space(c))
			continue;
		if (c == '"')
			in_string = !in_string;
		if (c == '"' || c == '\\')
			*to++ = '\\';
		*to++ = c;
		/* An escape: the character after the backslash, which may be a quote, belongs to
		 * it. */
		if (c == '\\') {
			c = v->text.p[++i];
			if (c == '"' || c == '\\')
				*to++ = '\\';
			*to++ = c;
		}
	}
	*to++ = '"';
	pen->at = to;
}

static void put_value(struct pen *pen, const struct json_value *v, bool as_string)
{
	if (as_string && v->type != JSON_STRING)
		put_as_string(pen, v);
	else
		put(pen, v->text);
}

/* Writes a member of the body, if it was given. */
static void put_member(struct pen *pen, struct span name, const struct json_value *v,
		       bool as_string)
{
	if (!v->text.p)
		return;
	put(pen, name);
	put_value(pen, v, as_string);
}

size_t wire_body(const struct request *r, char *out)
{
	struct pen pen = {out};

	put(&pen, SPAN("\"op\":"));
	*pen.at++ = (char)('0' + r->op);
	put_member(&pen, SPAN(",\"key\":"), &r->key, false);
	put_member(&pen, SPAN(",\"endKey\":"), &r->end_key, false);
	put_member(&pen, SPAN(",\"value\":"), &r->value, r->op != OP_INCREMENT);
	if (r->op == OP_INCREMENT && !r->value.text.p)
		put(&pen, SPAN(",\"value\":1"));
	put_member(&pen, SPAN(",\"limit\":"), &r->limit, false);
	*pen.at++ = '}';
	return (size_t)(pen.at - out);
}

/* --- frames --- */

/* The members that are read; others only pass through. */
enum member {
	MEMBER_ID,
	MEMBER_CODE,
	MEMBER_TYPE,
	MEMBER_KEY,
	MEMBER_VALUE,
	MEMBER_TIMESTAMP,
	MEMBER_N
};

static const struct span member_names[] = {
	[MEMBER_ID] = SPAN("messageId"), [MEMBER_CODE] = SPAN("code"),
	[MEMBER_TYPE] = SPAN("type"),    [MEMBER_KEY] = SPAN("key"),
	[MEMBER_VALUE] = SPAN("value"),  [MEMBER_TIMESTAMP] = SPAN("timestamp"),
};
_Static_assert(sizeof(member_names) / sizeof(member_names[0]) == MEMBER_N,
	       "a name for each member");

struct members {
	struct json_value value[MEMBER_N]; /* the first with its name; text.p NULL: not given */
	bool twice[MEMBER_N];
};

static bool given(const struct json_value *v)
{
	return v->text.p != NULL;
}

static void note_member(struct members *members, struct wire_frame *frame,
			const struct json_member *m)
{
	size_t member = json_string_find(&m->name, member_names, MEMBER_N);

	frame->id_is_last = false;
	if (member == MEMBER_N)
		return;
	if (given(&members->value[member])) {
		members->twice[member] = true;
		return;
	}
	members->value[member] = m->value;
	if (member == MEMBER_ID) {
		frame->id_member = *m;
		frame->id_is_last = true;
	}
}

/* Reads the text; returns why it is no JSON object, or NULL. */
static const char *collect(struct members *members, struct wire_frame *frame)
{
	struct json_object_reader reader;
	struct json_member m;

	json_object_begin(&reader, frame->text);
	while (json_object_next(&reader, &m) > 0)
		note_member(members, frame, &m);
	frame->newline = reader.newline;
	return reader.fault;
}

static void read_id(const struct members *members, struct wire_frame *frame)
{
	const struct json_value *id = &members->value[MEMBER_ID];
	int64_t number;

	if (!given(id) || id->type != JSON_NUMBER ||
	    !json_number_integer(id, 0, (int64_t)WIRE_ID_MAX, &number))
		return;
	frame->id = (uint64_t)number;
	frame->has_id = true;
}

static bool is_notification(const struct members *members)
{
	const struct json_value *type = &members->value[MEMBER_TYPE];

	return given(type) && type->type == JSON_STRING &&
	       json_string_is(type, SPAN("notification"));
}

/* Both return why the frame can not be used, or NULL. */

static const char *read_notification(const struct members *members, struct wire_frame *frame)
{
	const struct json_value *key = &members->value[MEMBER_KEY];

	if (!given(key))
		return "a notification without a key";
	if (key->type != JSON_STRING)
		return "a notification whose key is not a string";
	if (members->twice[MEMBER_KEY] || members->twice[MEMBER_VALUE])
		return "a notification whose key or value is given twice";
	frame->key = *key;
	frame->value = members->value[MEMBER_VALUE];
	frame->timestamp = members->value[MEMBER_TIMESTAMP];
	frame->kind = WIRE_NOTIFICATION;
	return NULL;
}

static const char *read_answer(const struct members *members, struct wire_frame *frame)
{
	const struct json_value *code = &members->value[MEMBER_CODE];
	int64_t number;

	if (!given(&members->value[MEMBER_ID]))
		return "neither a notification nor a messageId";
	if (members->twice[MEMBER_ID])
		return "a messageId that is given twice";
	if (!frame->has_id)
		return "a messageId that is none of ours";
	if (!given(code))
		return "an answer without a code";
	if (members->twice[MEMBER_CODE])
		return "an answer whose code is given twice";
	if (code->type != JSON_NUMBER || !json_number_integer(code, 0, INT32_MAX, &number))
		return "an answer whose code is not a whole number";
	frame->code = (int)number;
	frame->key = members->value[MEMBER_KEY];
	frame->value = members->value[MEMBER_VALUE];
	frame->kind = WIRE_ANSWER;
	return NULL;
}

void wire_parse(struct span text, struct wire_frame *frame)
{
	struct members members = {0};

	*frame = (struct wire_frame){.kind = WIRE_UNUSABLE, .text = text};
	frame->fault = collect(&members, frame);
	bool notification = is_notification(&members);
	const struct json_value *key = &members.value[MEMBER_KEY];
	frame->notifies = notification && given(key) && key->type == JSON_STRING;
	read_id(&members, frame);
	if (frame->fault)
		return;
	frame->fault =
		notification ? read_notification(&members, frame) : read_answer(&members, frame);
}

/* --- answers --- */

size_t wire_splice_max(const struct wire_frame *frame, struct span id)
{
	return frame->text.n + id.n + 1;
}

/* The part of the frame to replace. Without an id it is the member and one comma: the following
 * one, or the one before if it is the last member; an only member has none. */
struct span wire_hole(const struct wire_frame *frame, bool whole_member)
{
	const char *from = frame->id_member.whole.p;
	const char *to = from + frame->id_member.whole.n;

	if (!whole_member)
		return frame->id_member.value.text;
	if (frame->id_is_last) {
		const char *comma = from - 1;
		while (is_space(*comma))
			comma--;
		if (*comma == ',')
			from = comma;
	} else {
		while (is_space(*to))
			to++;
		to++;
	}
	return (struct span){from, (size_t)(to - from)};
}

void wire_flatten(char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\n' || text[i] == '\r')
			text[i] = ' ';
	}
}

size_t wire_splice(const struct wire_frame *frame, struct span id, char *out)
{
	struct span gap = wire_hole(frame, id.n == 0);
	struct span before = {frame->text.p, (size_t)(gap.p - frame->text.p)};
	struct span after = {gap.p + gap.n, frame->text.n - before.n - gap.n};
	struct pen pen = {out};

	put(&pen, before);
	if (id.n)
		put(&pen, id);
	put(&pen, after);
	if (frame->newline)
		wire_flatten(out, (size_t)(pen.at - out));
	*pen.at++ = '\n';
	return (size_t)(pen.at - out);
}
