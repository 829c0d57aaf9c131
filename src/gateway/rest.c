#include "gateway/rest.h"

#include <stdio.h>

#include "codec/json.h"
#include "codec/uri.h"

/* ---- paths ---- */

#define RECORD "/record/"

static const struct {
	struct span path;
	bool names_key; /* a key follows */
	enum http_verb verb;
	enum rest_kind kind;
} routes[] = {
	{SPAN("/record"), false, HTTP_VERB_POST, REST_SET},
	{SPAN("/record/atomic"), false, HTTP_VERB_POST, REST_INCREMENT},
	{SPAN(RECORD), true, HTTP_VERB_GET, REST_GET},
	{SPAN(RECORD), true, HTTP_VERB_DELETE, REST_DELETE},
	{SPAN("/records"), false, HTTP_VERB_GET, REST_RANGE},
	{SPAN("/token/websocket"), false, HTTP_VERB_POST, REST_TOKEN},
	{SPAN("/search"), false, HTTP_VERB_POST, REST_SEARCH},
	{SPAN("/query"), false, HTTP_VERB_POST, REST_QUERY},
	{SPAN("/hpkvd/status"), false, HTTP_VERB_GET, REST_STATUS},
	{SPAN("/hpkvd/stats"), false, HTTP_VERB_GET, REST_STATS},
	{SPAN("/hpkvd/ready"), false, HTTP_VERB_GET, REST_READY},
	{SPAN("/hpkvd/watch"), false, HTTP_VERB_GET, REST_WATCH},
	{SPAN("/ws"), false, HTTP_VERB_GET, REST_SOCKET},
};

enum { ROUTES_N = sizeof(routes) / sizeof(routes[0]) };

static bool route_fits(size_t i, struct span path)
{
	struct span begin = {path.p, routes[i].names_key && path.n > routes[i].path.n
					     ? routes[i].path.n
					     : path.n};

	return span_equal(begin, routes[i].path);
}

/* Without what makes no sense without a body of its own. */
static bool has_head(enum rest_kind kind)
{
	return kind != REST_WATCH && kind != REST_SOCKET;
}

void rest_allow(struct span path, struct buf *allow)
{
	static const char *const names[HTTP_VERB_N] = {
		[HTTP_VERB_GET] = "GET", [HTTP_VERB_POST] = "POST", [HTTP_VERB_DELETE] = "DELETE"};

	for (size_t i = 0; i < ROUTES_N; i++) {
		if (!route_fits(i, path))
			continue;
		buf_addf(allow, "%s, ", names[routes[i].verb]);
		if (routes[i].verb == HTTP_VERB_GET && has_head(routes[i].kind))
			buf_addf(allow, "HEAD, ");
	}
	if (buf_len(allow))
		buf_addf(allow, "OPTIONS");
}

int rest_find(enum http_verb verb, struct span path, enum rest_kind *kind, struct buf *allow)
{
	for (size_t i = 0; i < ROUTES_N; i++) {
		enum http_verb asked =
			verb == HTTP_VERB_HEAD && has_head(routes[i].kind) ? HTTP_VERB_GET : verb;
		if (routes[i].verb != asked || !route_fits(i, path))
			continue;
		*kind = routes[i].kind;
		return 0;
	}
	rest_allow(path, allow);
	return buf_len(allow) ? 405 : 404;
}

bool rest_has_body(enum rest_kind kind)
{
	for (size_t i = 0; i < ROUTES_N; i++) {
		if (routes[i].kind == kind)
			return routes[i].verb == HTTP_VERB_POST;
	}
	return false;
}

/* ---- a line in the making ---- */

enum { KEYS, PATTERNS, LISTS_N };

struct making {
	enum rest_kind kind;
	const char *op;
	struct buf members; /* ,"name":value ... */
	struct buf list[LISTS_N];
	struct buf name, value; /* of the present parameter, decoded */
	uint32_t given;         /* bits of parameters */
	struct rest_fault *fault;
};

static void empty(struct buf *b)
{
	buf_take(b, buf_len(b));
}

static bool refuse(struct making *m, const char *name, const char *why)
{
	m->fault->error = REPLY_BAD_REQUEST;
	snprintf(m->fault->text, sizeof(m->fault->text), "%s %s", name, why);
	return false;
}

static void add_member(struct making *m, const char *name, struct span text)
{
	buf_addf(&m->members, ",\"%s\":", name);
	buf_add(&m->members, text.p, text.n);
}

/* Bytes as a JSON string. Those that are not UTF-8 have no place in one. */
static bool add_string(struct making *m, struct buf *out, const char *shown, struct span bytes)
{
	if (json_escapable(bytes) < bytes.n)
		return refuse(m, shown, "is not UTF-8");
	json_add_string(out, bytes);
	return true;
}

/* ---- parameters of the query ---- */

struct parameter;
typedef bool parameter_read(struct making *m, const struct parameter *p);

static const struct parameter {
	const char *name;
	const char *member;
	parameter_read *read;
	bool often;          /* may be there more than once */
	enum rest_kind kind; /* that has it; REST_KIND_N: all */
} parameters[];

static bool read_number(struct making *m, const struct parameter *p)
{
	struct span text = buf_span(&m->value);
	size_t i = text.n && text.p[0] == '-';

	if (i == text.n || text.n > 12 || (text.p[i] == '0' && i + 1 < text.n))
		return refuse(m, p->name, "must be a whole number");
	for (; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return refuse(m, p->name, "must be a whole number");
	}
	add_member(m, p->member, text);
	return true;
}

static bool read_flag(struct making *m, const struct parameter *p)
{
	struct span text = buf_span(&m->value);

	if (!span_equal(text, SPAN("true")) && !span_equal(text, SPAN("false")))
		return refuse(m, p->name, "must be true or false");
	add_member(m, p->member, text);
	return true;
}

/* The published client encodes these twice. */
static bool read_bound(struct making *m, const struct parameter *p)
{
	struct span text = buf_span(&m->value);
	struct buf again = {0};

	if (uri_is_encoded_again(text)) {
		uri_decode(text, &again);
		text = buf_span(&again);
	}
	buf_addf(&m->members, ",\"%s\":", p->member);
	bool proper = add_string(m, &m->members, p->name, text);
	buf_release(&again);
	return proper;
}

static bool read_name(struct making *m, const struct parameter *p)
{
	struct buf *list = &m->list[p->member[0] == 'k' ? KEYS : PATTERNS];

	if (!buf_len(&m->value))
		return refuse(m, p->name, "must not be empty");
	buf_addf(list, "%s", buf_len(list) ? "," : "[");
	return add_string(m, list, p->name, buf_span(&m->value));
}

static const struct parameter parameters[] = {
	{"timeoutMs", "timeoutMs", read_number, false, REST_KIND_N},
	{"startKey", "key", read_bound, false, REST_RANGE},
	{"endKey", "endKey", read_bound, false, REST_RANGE},
	{"limit", "limit", read_number, false, REST_RANGE},
	{"fresh", "fresh", read_flag, false, REST_RANGE},
	{"fresh", "fresh", read_flag, false, REST_GET},
	{"key", "keys", read_name, true, REST_WATCH},
	{"pattern", "patterns", read_name, true, REST_WATCH},
	{"initial", "initial", read_flag, false, REST_WATCH},
	{"top", "top", read_flag, false, REST_STATUS},
};

enum { PARAMETERS_N = sizeof(parameters) / sizeof(parameters[0]) };

/* Only one that is known is decoded: another one may be a key. */
static bool read_parameter(struct making *m, struct span value)
{
	struct span name = buf_span(&m->name);

	for (size_t i = 0; i < PARAMETERS_N; i++) {
		const struct parameter *p = &parameters[i];
		if (!span_equal(name, (struct span){p->name, strlen(p->name)}) ||
		    (p->kind != REST_KIND_N && p->kind != m->kind))
			continue;
		if (m->given & 1u << i && !p->often)
			return refuse(m, p->name, "is given twice");
		m->given |= 1u << i;
		empty(&m->value);
		return uri_decode(value, &m->value)
			       ? p->read(m, p)
			       : refuse(m, p->name, "is not percent-encoded properly");
	}
	return true; /* unknown ones are ignored, as unknown members are */
}

static bool was_given(const struct making *m, const char *name)
{
	for (size_t i = 0; i < PARAMETERS_N; i++) {
		if (strcmp(parameters[i].name, name) == 0)
			return m->given & 1u << i;
	}
	return false;
}

static bool read_query(struct making *m, struct span query)
{
	struct span name, value;
	bool proper = true;

	while (proper && uri_next_parameter(&query, &name, &value)) {
		empty(&m->name);
		proper = uri_decode(name, &m->name)
				 ? read_parameter(m, value)
				 : refuse(m, "the query", "is not percent-encoded properly");
	}
	return proper;
}

bool rest_parameter(struct span query, struct span name, struct buf *out)
{
	struct span n, value;

	while (uri_next_parameter(&query, &n, &value)) {
		if (span_equal(n, name))
			return uri_decode(value, out);
	}
	return false;
}

/* ---- bodies ---- */

static const struct body_member {
	enum rest_kind kind;
	struct span name;
	const char *member; /* of the line; NULL: decides on the op */
} body_members[] = {
	{REST_SET, SPAN("key"), "key"},
	{REST_SET, SPAN("value"), "value"},
	{REST_SET, SPAN("partialUpdate"), NULL},
	{REST_INCREMENT, SPAN("key"), "key"},
	{REST_INCREMENT, SPAN("increment"), "value"},
	{REST_TOKEN, SPAN("subscribeKeys"), "subscribeKeys"},
	{REST_TOKEN, SPAN("subscribePatterns"), "subscribePatterns"},
	{REST_TOKEN, SPAN("accessPattern"), "accessPattern"},
};

static bool read_partial(struct making *m, const struct json_value *v)
{
	if (v->type != JSON_TRUE && v->type != JSON_FALSE)
		return refuse(m, "partialUpdate", "must be true or false");
	m->op = v->type == JSON_TRUE ? "patch" : "set";
	return true;
}

static bool read_member(struct making *m, const struct json_member *member)
{
	for (size_t i = 0; i < sizeof(body_members) / sizeof(body_members[0]); i++) {
		const struct body_member *b = &body_members[i];
		if (b->kind != m->kind || !json_string_is(&member->name, b->name))
			continue;
		if (!b->member)
			return read_partial(m, &member->value);
		if (m->kind == REST_INCREMENT && strcmp(b->member, "value") == 0) {
			m->given = 1;
			if (member->value.type != JSON_NUMBER)
				return refuse(m, "increment", "must be a number");
		}
		add_member(m, b->member, member->value.text);
		return true;
	}
	return true;
}

static bool refuse_json(struct making *m, const struct json_object_reader *reader)
{
	m->fault->error = REPLY_BAD_JSON;
	snprintf(m->fault->text, sizeof(m->fault->text),
		 "the body is not a JSON object: %s at byte %zu", reader->fault,
		 reader->fault_offset);
	return false;
}

static bool read_body(struct making *m, struct span body)
{
	struct json_object_reader reader;
	struct json_member member;
	int more;

	m->given = 0;
	json_object_begin(&reader, body);
	while ((more = json_object_next(&reader, &member)) > 0) {
		if (!read_member(m, &member))
			return false;
	}
	if (more < 0)
		return refuse_json(m, &reader);
	if (m->kind == REST_INCREMENT && !m->given)
		return refuse(m, "increment", "is missing");
	if (m->kind == REST_SEARCH || m->kind == REST_QUERY)
		add_member(m, "body", body);
	return true;
}

/* ---- a line ---- */

static bool read_key(struct making *m, struct span path)
{
	struct span text = {path.p + strlen(RECORD), path.n - strlen(RECORD)};

	empty(&m->value);
	if (!uri_decode(text, &m->value))
		return refuse(m, "the key in the path", "is not percent-encoded properly");
	buf_addf(&m->members, ",\"key\":");
	return add_string(m, &m->members, "the key in the path", buf_span(&m->value));
}

static bool read_rest(struct making *m, const struct http_request *r)
{
	switch (m->kind) {
	case REST_GET:
	case REST_DELETE:
		return read_key(m, r->path);
	case REST_RANGE:
		if (!was_given(m, "startKey"))
			return refuse(m, "startKey", "is missing");
		return was_given(m, "endKey") || refuse(m, "endKey", "is missing");
	case REST_WATCH:
		for (int i = 0; i < LISTS_N; i++) {
			if (!buf_len(&m->list[i]))
				continue;
			buf_addf(&m->list[i], "]");
			add_member(m, i == KEYS ? "keys" : "patterns", buf_span(&m->list[i]));
		}
		return buf_len(&m->list[KEYS]) || buf_len(&m->list[PATTERNS]) ||
		       refuse(m, "key", "is missing (or pattern)");
	case REST_SET:
	case REST_INCREMENT:
	case REST_TOKEN:
	case REST_SEARCH:
	case REST_QUERY:
		return read_body(m, r->body);
	case REST_STATUS:
	case REST_STATS:
	case REST_READY:
	case REST_SOCKET:
	case REST_KIND_N:
		break;
	}
	return true;
}

bool rest_line(enum rest_kind kind, const struct http_request *r, struct buf *line,
	       struct rest_fault *fault)
{
	static const char *const ops[REST_KIND_N] = {
		[REST_SET] = "set",         [REST_GET] = "get",
		[REST_DELETE] = "delete",   [REST_INCREMENT] = "increment",
		[REST_RANGE] = "range",     [REST_TOKEN] = "token",
		[REST_SEARCH] = "search",   [REST_QUERY] = "query",
		[REST_STATUS] = "status",   [REST_STATS] = "stats",
		[REST_WATCH] = "subscribe",
	};
	struct making m = {.kind = kind, .op = ops[kind], .fault = fault};

	bool proper = read_query(&m, r->query) && read_rest(&m, r);
	if (proper) {
		buf_addf(line, "{\"op\":\"%s\"%s", m.op,
			 kind == REST_TOKEN ? ",\"local\":true" : "");
		buf_add(line, buf_span(&m.members).p, buf_len(&m.members));
		buf_addf(line, "}");
	}
	buf_release(&m.members);
	buf_release(&m.name);
	buf_release(&m.value);
	for (int i = 0; i < LISTS_N; i++)
		buf_release(&m.list[i]);
	return proper;
}

bool rest_timeout(struct span query, struct buf *member, struct rest_fault *fault)
{
	struct making m = {.kind = REST_SOCKET, .fault = fault};
	bool proper = read_query(&m, query);

	if (proper)
		buf_add(member, buf_span(&m.members).p, buf_len(&m.members));
	buf_release(&m.members);
	buf_release(&m.name);
	buf_release(&m.value);
	return proper;
}

/* ---- an answer ---- */

enum {
	ANSWER_CODE,
	ANSWER_REASON,
	ANSWER_RETRY,
	ANSWER_VALUE,
	ANSWER_CACHED,
	ANSWER_STALE,
	ANSWER_MEMBERS_N
};

static const struct span answer_names[] = {
	[ANSWER_CODE] = SPAN("code"),          [ANSWER_REASON] = SPAN("reason"),
	[ANSWER_RETRY] = SPAN("retryAfterMs"), [ANSWER_VALUE] = SPAN("newValue"),
	[ANSWER_CACHED] = SPAN("cached"),      [ANSWER_STALE] = SPAN("stale"),
};
_Static_assert(sizeof(answer_names) / sizeof(answer_names[0]) == ANSWER_MEMBERS_N,
	       "a name for each member");

/* The service's code may be any number; only some are an HTTP status with a body. */
static int status_of(int64_t code)
{
	if (code >= 200 && code < 300)
		return 200;
	return code >= 400 && code < 600 ? (int)code : 502;
}

static struct span without_line_end(struct span line)
{
	while (line.n && line.p[line.n - 1] == '\n')
		line.n--;
	return line;
}

/* Its members but for code. */
static void copy_members(struct span line, struct buf *body)
{
	struct json_object_reader reader;
	struct json_member m;
	const char *between = "{";

	json_object_begin(&reader, line);
	while (json_object_next(&reader, &m) > 0) {
		if (json_string_is(&m.name, answer_names[ANSWER_CODE]))
			continue;
		buf_addf(body, "%s", between);
		buf_add(body, m.whole.p, m.whole.n);
		between = ",";
	}
	buf_addf(body, "%s}", between[0] == '{' ? "{" : "");
}

struct rest_answer rest_answer(enum rest_kind kind, struct span line, struct buf *body)
{
	struct rest_answer answer = {.status = 0, .retry_after_ms = -1};
	struct json_value found[ANSWER_MEMBERS_N] = {0};
	struct json_object_reader reader;
	struct json_member m;
	int64_t n;

	line = without_line_end(line);
	json_object_begin(&reader, line);
	while (json_object_next(&reader, &m) > 0) {
		size_t i = json_string_find(&m.name, answer_names, ANSWER_MEMBERS_N);
		if (i < ANSWER_MEMBERS_N)
			found[i] = m.value;
	}
	if (!found[ANSWER_CODE].text.p)
		return answer;
	answer.status = json_number_integer(&found[ANSWER_CODE], INT32_MIN, INT32_MAX, &n)
				? status_of(n)
				: 502;
	if (found[ANSWER_RETRY].text.p &&
	    json_number_integer(&found[ANSWER_RETRY], 0, INT32_MAX, &n))
		answer.retry_after_ms = (long)n;
	if (found[ANSWER_REASON].text.p || kind == REST_STATUS || kind == REST_STATS) {
		buf_add(body, line.p, line.n);
		return answer;
	}
	if (kind == REST_GET || kind == REST_RANGE)
		answer.cache = found[ANSWER_STALE].text.p    ? SPAN("x-hpkvd-cache: stale\r\n")
			       : found[ANSWER_CACHED].text.p ? SPAN("x-hpkvd-cache: hit\r\n")
							     : SPAN("x-hpkvd-cache: miss\r\n");
	copy_members(line, body);
	if (kind == REST_INCREMENT && found[ANSWER_VALUE].text.p) {
		buf_cut(body, buf_len(body) - 1); /* its brace */
		buf_addf(body, ",\"result\":%.*s}", (int)found[ANSWER_VALUE].text.n,
			 found[ANSWER_VALUE].text.p);
	}
	return answer;
}

/* ---- events ---- */

void rest_event(struct span line, struct buf *out)
{
	struct json_object_reader reader;
	struct json_member m;
	struct span type = SPAN("message");

	line = without_line_end(line);
	json_object_begin(&reader, line);
	while (json_object_next(&reader, &m) > 0) {
		if (m.value.type == JSON_STRING && !m.value.escaped &&
		    json_string_is(&m.name, SPAN("type")))
			type = json_string_raw(&m.value);
	}
	buf_addf(out, "event: %.*s\ndata: ", (int)type.n, type.p);
	buf_add(out, line.p, line.n);
	buf_addf(out, "\n\n");
}
