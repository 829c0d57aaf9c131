#include "encode.h"

#include <stdio.h>

#include "codec/json.h"

enum { TIMEOUT_MAX_MS = 600000 };

/* Bits: the members that an op takes. */
enum {
	KEY = 1,
	END_KEY = 2,
	TEXT = 4,
	NUMBER = 8,
	TOPICS = 16,
	TOKEN = 32,
	REPEATABLE = 64,
	REMOTE = 128
};

static const struct op {
	enum hpkv_op op;
	struct span name;
	unsigned bits;
} ops[] = {
	{HPKV_GET, SPAN("get"), KEY | REPEATABLE | REMOTE},
	{HPKV_SET, SPAN("set"), KEY | TEXT | REMOTE},
	{HPKV_PATCH, SPAN("patch"), KEY | TEXT | REMOTE},
	{HPKV_DELETE, SPAN("delete"), KEY | REMOTE},
	{HPKV_RANGE, SPAN("range"), KEY | END_KEY | REPEATABLE | REMOTE},
	{HPKV_INCREMENT, SPAN("increment"), KEY | NUMBER | REMOTE},
	{HPKV_SUBSCRIBE, SPAN("subscribe"), TOPICS | REPEATABLE | REMOTE},
	{HPKV_UNSUBSCRIBE, SPAN("unsubscribe"), TOPICS | REPEATABLE},
	{HPKV_TOKEN, SPAN("token"), TOKEN | REPEATABLE | REMOTE},
	{HPKV_PING, SPAN("ping"), REPEATABLE},
	{HPKV_STATUS, SPAN("status"), REPEATABLE},
	{HPKV_STATS, SPAN("stats"), REPEATABLE},
};

enum { N_OPS = sizeof(ops) / sizeof(ops[0]) };

static const struct op *find_op(enum hpkv_op number)
{
	for (unsigned i = 0; i < N_OPS; i++) {
		if (ops[i].op == number)
			return &ops[i];
	}
	return NULL;
}

static const struct op *find_name(const struct json_value *name)
{
	for (unsigned i = 0; i < N_OPS; i++) {
		if (json_string_is(name, ops[i].name))
			return &ops[i];
	}
	return NULL;
}

static int refuse(char fault[ENCODE_FAULT_MAX], const char *what, const char *why)
{
	snprintf(fault, ENCODE_FAULT_MAX, "%s %s", what, why);
	return HPKV_INVALID;
}

/* ---- members ---- */

static void add_name(struct text *line, const char *name)
{
	text_add(line, ",\"", 2);
	text_word(line, name);
	text_add(line, "\":", 2);
}

/* The only place where bytes become JSON. */
static int add_plain(struct text *line, const char *what, struct hpkv_bytes plain,
		     char fault[ENCODE_FAULT_MAX])
{
	size_t good = json_escapable((struct span){plain.p, plain.n});

	if (good < plain.n) {
		snprintf(fault, ENCODE_FAULT_MAX,
			 "the %s is not UTF-8 (byte %zu of %zu): encode it, as base64 for example",
			 what, good + 1, plain.n);
		return HPKV_INVALID;
	}
	text_json(line, plain);
	return HPKV_OK;
}

static int add_string(struct text *line, const char *name, const char *what,
		      struct hpkv_bytes plain, char fault[ENCODE_FAULT_MAX])
{
	if (!plain.p)
		return refuse(fault, what, "is missing");
	add_name(line, name);
	return add_plain(line, what, plain, fault);
}

static int add_strings(struct text *line, const char *name, const char *what,
		       const struct hpkv_bytes *list, size_t n, char fault[ENCODE_FAULT_MAX])
{
	int result = HPKV_OK;

	if (!n)
		return HPKV_OK;
	add_name(line, name);
	for (size_t i = 0; i < n && !result; i++) {
		text_add(line, i ? "," : "[", 1);
		result = add_plain(line, what, list[i], fault);
	}
	text_add(line, "]", 1);
	return result;
}

/* Is the text a JSON number? It is sent unchanged. */
static bool is_number(struct hpkv_bytes text, bool *no_memory)
{
	struct text object = {0};
	struct json_object_reader reader;
	struct json_member member;

	text_word(&object, "{\"n\":");
	text_add(&object, text.p, text.n);
	text_add(&object, "}", 1);
	*no_memory = object.failed;
	json_object_begin(&reader, text_span(&object));
	bool number = !object.failed && json_object_next(&reader, &member) == 1 &&
		      member.value.type == JSON_NUMBER && member.value.text.n == text.n &&
		      json_object_next(&reader, &member) == 0;
	text_free(&object);
	return number;
}

static int add_number(struct text *line, struct hpkv_bytes number, char fault[ENCODE_FAULT_MAX])
{
	bool no_memory;

	if (!number.p)
		return HPKV_OK;
	if (!is_number(number, &no_memory))
		return no_memory
			       ? HPKV_NO_MEMORY
			       : refuse(fault, "the value", "is not a number as JSON writes them");
	add_name(line, "value");
	text_add(line, number.p, number.n);
	return HPKV_OK;
}

static int add_topics(struct text *line, const struct hpkv_request *q, const struct op *op,
		      char fault[ENCODE_FAULT_MAX])
{
	bool token = op->bits & TOKEN;
	int result = add_strings(line, token ? "subscribeKeys" : "keys", "key", q->keys, q->n_keys,
				 fault);

	if (!result)
		result = add_strings(line, token ? "subscribePatterns" : "patterns", "pattern",
				     q->patterns, q->n_patterns, fault);
	if (!result && token && q->value.p)
		result = add_string(line, "accessPattern", "access pattern", q->value, fault);
	if (!result && q->initial && op->op == HPKV_SUBSCRIBE)
		text_word(line, ",\"initial\":true");
	return result;
}

static int add_members(struct text *line, const struct hpkv_request *q, const struct op *op,
		       char fault[ENCODE_FAULT_MAX])
{
	int result = HPKV_OK;

	if (op->bits & KEY)
		result = add_string(line, "key", "key", q->key, fault);
	if (!result && op->bits & END_KEY)
		result = add_string(line, "endKey", "last key", q->end_key, fault);
	if (!result && op->bits & TEXT)
		result = add_string(line, "value", "value", q->value, fault);
	if (!result && op->bits & NUMBER)
		result = add_number(line, q->value, fault);
	if (!result && op->bits & (TOPICS | TOKEN))
		result = add_topics(line, q, op, fault);
	if (op->op == HPKV_RANGE && q->limit)
		text_addf(line, ",\"limit\":%u", q->limit);
	return result;
}

static void describe(struct encoded *e, const struct op *op)
{
	e->op = op ? op->op : HPKV_JSON;
	e->repeatable = op && op->bits & REPEATABLE;
	e->remote = !op || op->bits & REMOTE;
}

/* ---- a request of the user's own text ---- */

static const struct op *op_of(const struct json_value *value)
{
	int64_t number;

	if (value->type == JSON_STRING)
		return find_name(value);
	if (value->type == JSON_NUMBER &&
	    json_number_integer(value, HPKV_GET, HPKV_INCREMENT, &number))
		return find_op((enum hpkv_op)number);
	return NULL;
}

static void copy_member(struct encoded *e, const struct json_member *m)
{
	static const struct span names[] = {SPAN("messageId"), SPAN("op"), SPAN("timeoutMs")};
	size_t which = json_string_find(&m->name, names, 3);
	int64_t ms;

	if (which == 0) {
		if (m->value.type == JSON_STRING || m->value.type == JSON_NUMBER)
			e->user_id = m->value.text;
		return;
	}
	if (which == 1)
		describe(e, op_of(&m->value));
	if (which == 2) {
		e->timeout_ms = 0; /* it has a timeoutMs, valid or for the daemon to refuse */
		if (m->value.type == JSON_NUMBER &&
		    json_number_integer(&m->value, 1, TIMEOUT_MAX_MS, &ms))
			e->timeout_ms = (int)ms;
	}
	text_add(&e->line, ",", 1);
	if (which == 2 && e->timeout_ms) {
		e->limit_at = e->line.n + (size_t)(m->value.text.p - m->whole.p);
		e->limit_n = m->value.text.n;
	}
	text_add(&e->line, m->whole.p, m->whole.n);
}

static void add_limit(struct encoded *e, int ms)
{
	text_addf(&e->line, ",\"timeoutMs\":");
	e->limit_at = e->line.n;
	text_addf(&e->line, "%d", ms);
	e->limit_n = e->line.n - e->limit_at;
}

static int encode_json(struct hpkv_bytes json, int timeout_ms, struct encoded *e,
		       char fault[ENCODE_FAULT_MAX])
{
	struct json_object_reader reader;
	struct json_member member;
	size_t start = e->line.n;
	int result;

	e->timeout_ms = -1;
	json_object_begin(&reader, (struct span){json.p, json.n});
	while ((result = json_object_next(&reader, &member)) > 0)
		copy_member(e, &member);
	if (result < 0) {
		snprintf(fault, ENCODE_FAULT_MAX,
			 "the request is not a JSON object: %s at byte %zu", reader.fault,
			 reader.fault_offset + 1);
		return HPKV_INVALID;
	}
	/* Line ends are allowed between tokens, but not within a line. */
	for (size_t i = start; reader.newline && i < e->line.n; i++) {
		if (e->line.p[i] == '\n' || e->line.p[i] == '\r')
			e->line.p[i] = ' ';
	}
	if (e->timeout_ms < 0) {
		e->timeout_ms = timeout_ms;
		add_limit(e, timeout_ms);
	} else if (!e->timeout_ms) {
		e->timeout_ms = timeout_ms;
	}
	return HPKV_OK;
}

static int encode_typed(const struct hpkv_request *q, int timeout_ms, struct encoded *e,
			char fault[ENCODE_FAULT_MAX])
{
	const struct op *op = find_op(q->op);

	if (!op)
		return refuse(fault, "the op", "is none that this library knows");
	describe(e, op);
	e->timeout_ms = timeout_ms;
	add_name(&e->line, "op");
	text_json(&e->line, (struct hpkv_bytes){op->name.p, op->name.n});
	add_limit(e, timeout_ms);
	return add_members(&e->line, q, op, fault);
}

int encode_request(const struct hpkv_request *q, uint64_t id, int timeout_ms, struct encoded *e,
		   char fault[ENCODE_FAULT_MAX])
{
	*e = (struct encoded){.op = HPKV_JSON, .remote = true};
	if (q->timeout_ms > 0)
		timeout_ms = q->timeout_ms > TIMEOUT_MAX_MS ? TIMEOUT_MAX_MS : q->timeout_ms;
	/* The messageId comes first: the daemon finds it even in a line that is too long. */
	text_addf(&e->line, "{\"messageId\":%llu", (unsigned long long)id);
	int result = q->op == HPKV_JSON ? encode_json(q->value, timeout_ms, e, fault)
					: encode_typed(q, timeout_ms, e, fault);
	text_add(&e->line, "}\n", 2);
	if (e->line.failed)
		result = HPKV_NO_MEMORY;
	if (result)
		text_free(&e->line);
	return result;
}
