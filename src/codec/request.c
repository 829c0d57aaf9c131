#include "codec/request.h"

#include <errno.h>
#include <stdio.h>

#include "base/printable.h"

/* All members that operations read. Those before MEMBER_KEY are checked for every operation. */
enum member {
	MEMBER_OP,
	MEMBER_ID,
	MEMBER_TIMEOUT,
	MEMBER_KEY,
	MEMBER_END_KEY,
	MEMBER_VALUE,
	MEMBER_LIMIT,
	MEMBER_KEYS,
	MEMBER_PATTERN,
	MEMBER_PATTERNS,
	MEMBER_INITIAL,
	MEMBER_TOP,
	MEMBER_FRESH,
	MEMBER_LOCAL,
	MEMBER_SUBSCRIBE_KEYS,
	MEMBER_SUBSCRIBE_PATTERNS,
	MEMBER_ACCESS_PATTERN,
	MEMBER_BODY,
	MEMBER_N
};

static const struct span member_names[] = {
	[MEMBER_OP] = SPAN("op"),
	[MEMBER_ID] = SPAN("messageId"),
	[MEMBER_TIMEOUT] = SPAN("timeoutMs"),
	[MEMBER_KEY] = SPAN("key"),
	[MEMBER_END_KEY] = SPAN("endKey"),
	[MEMBER_VALUE] = SPAN("value"),
	[MEMBER_LIMIT] = SPAN("limit"),
	[MEMBER_KEYS] = SPAN("keys"),
	[MEMBER_PATTERN] = SPAN("pattern"),
	[MEMBER_PATTERNS] = SPAN("patterns"),
	[MEMBER_INITIAL] = SPAN("initial"),
	[MEMBER_TOP] = SPAN("top"),
	[MEMBER_FRESH] = SPAN("fresh"),
	[MEMBER_LOCAL] = SPAN("local"),
	[MEMBER_SUBSCRIBE_KEYS] = SPAN("subscribeKeys"),
	[MEMBER_SUBSCRIBE_PATTERNS] = SPAN("subscribePatterns"),
	[MEMBER_ACCESS_PATTERN] = SPAN("accessPattern"),
	[MEMBER_BODY] = SPAN("body"),
};
_Static_assert(sizeof(member_names) / sizeof(member_names[0]) == MEMBER_N,
	       "a name for each member");

/* The type that a member must have. */
enum want {
	WANT_STRING,
	WANT_NUMBER,
	WANT_NOT_NULL,
	WANT_BOOL,
	WANT_STRINGS,
	WANT_NAME, /* a name to subscribe to: the service has no empty key */
	WANT_NAMES,
	WANT_OBJECT,
	WANT_N
};

static const char *const want_faults[] = {
	[WANT_STRING] = "must be a string",
	[WANT_NUMBER] = "must be a number",
	[WANT_NOT_NULL] = "must not be null",
	[WANT_BOOL] = "must be true or false",
	[WANT_STRINGS] = "must be an array of strings",
	[WANT_NAME] = "must be a string that is not empty",
	[WANT_NAMES] = "must be an array of strings that are not empty",
	[WANT_OBJECT] = "must be an object",
};
_Static_assert(sizeof(want_faults) / sizeof(want_faults[0]) == WANT_N, "a sentence for each want");

enum { OP_MEMBERS_MAX = 5 };

/* Properties of an operation: goes to the service; names one key; changes nothing, so it may be
 * sent twice; needs at least one of its members. */
enum { REMOTE = 1, ONE_KEY = 2, READ = 4, NAMES = 8 };

static const struct op {
	const char *name; /* NULL: no operation has the number */
	unsigned bits;
	struct {
		enum member member;
		enum want want;
		bool required;
	} members[OP_MEMBERS_MAX];
	size_t n_members;
} ops[] = {
	[OP_GET] = {"get",
		    REMOTE | ONE_KEY | READ,
		    {{MEMBER_KEY, WANT_STRING, true}, {MEMBER_FRESH, WANT_BOOL, false}},
		    2},
	[OP_SET] = {"set",
		    REMOTE | ONE_KEY,
		    {{MEMBER_KEY, WANT_STRING, true}, {MEMBER_VALUE, WANT_NOT_NULL, true}},
		    2},
	[OP_PATCH] = {"patch",
		      REMOTE | ONE_KEY,
		      {{MEMBER_KEY, WANT_STRING, true}, {MEMBER_VALUE, WANT_NOT_NULL, true}},
		      2},
	[OP_DELETE] = {"delete", REMOTE | ONE_KEY, {{MEMBER_KEY, WANT_STRING, true}}, 1},
	[OP_RANGE] = {"range",
		      REMOTE | READ,
		      {{MEMBER_KEY, WANT_STRING, true},
		       {MEMBER_END_KEY, WANT_STRING, true},
		       {MEMBER_LIMIT, WANT_NUMBER, false},
		       {MEMBER_FRESH, WANT_BOOL, false}},
		      4},
	[OP_INCREMENT] = {"increment",
			  REMOTE | ONE_KEY,
			  {{MEMBER_KEY, WANT_STRING, true}, {MEMBER_VALUE, WANT_NUMBER, false}},
			  2},
	[OP_SUBSCRIBE] = {"subscribe",
			  NAMES,
			  {{MEMBER_KEY, WANT_NAME, false},
			   {MEMBER_KEYS, WANT_NAMES, false},
			   {MEMBER_PATTERN, WANT_NAME, false},
			   {MEMBER_PATTERNS, WANT_NAMES, false},
			   {MEMBER_INITIAL, WANT_BOOL, false}},
			  5},
	[OP_UNSUBSCRIBE] = {"unsubscribe",
			    0,
			    {{MEMBER_KEY, WANT_NAME, false},
			     {MEMBER_KEYS, WANT_NAMES, false},
			     {MEMBER_PATTERN, WANT_NAME, false},
			     {MEMBER_PATTERNS, WANT_NAMES, false}},
			    4},
	[OP_TOKEN] = {"token",
		      0,
		      {{MEMBER_SUBSCRIBE_KEYS, WANT_STRINGS, false},
		       {MEMBER_SUBSCRIBE_PATTERNS, WANT_STRINGS, false},
		       {MEMBER_ACCESS_PATTERN, WANT_STRING, false},
		       {MEMBER_LOCAL, WANT_BOOL, false}},
		      4},
	[OP_PING] = {"ping", 0, {{0}}, 0},
	[OP_STATUS] = {"status", 0, {{MEMBER_TOP, WANT_BOOL, false}}, 1},
	[OP_STATS] = {"stats", 0, {{0}}, 0},
	[OP_SEARCH] = {"search", 0, {{MEMBER_BODY, WANT_OBJECT, true}}, 1},
	[OP_QUERY] = {"query", 0, {{MEMBER_BODY, WANT_OBJECT, true}}, 1},
};
_Static_assert(sizeof(ops) / sizeof(ops[0]) == OP_N, "a row for each op");

const char *request_op_name(enum request_op op)
{
	return ops[op].name;
}

bool request_op_is_remote(enum request_op op)
{
	return ops[op].bits & REMOTE;
}

bool request_op_has_key(enum request_op op)
{
	return ops[op].bits & ONE_KEY;
}

bool request_op_is_read(enum request_op op)
{
	return ops[op].bits & READ;
}

/* The known members of a line, before they are checked. */
struct members {
	struct json_value value[MEMBER_N]; /* the first with its name; text.p NULL: not given */
	bool twice[MEMBER_N];
};

static bool given(const struct json_value *v)
{
	return v->text.p != NULL;
}

static void note_member(struct members *members, const struct json_member *m)
{
	size_t i = json_string_find(&m->name, member_names, MEMBER_N);

	if (i == MEMBER_N)
		return;
	if (given(&members->value[i]))
		members->twice[i] = true;
	else
		members->value[i] = m->value;
}

static int refuse_json(struct request_fault *fault, const struct json_object_reader *reader)
{
	fault->error = REPLY_BAD_JSON;
	snprintf(fault->text, sizeof(fault->text), "the line is not a JSON object: %s at byte %zu",
		 reader->fault, reader->fault_offset);
	return -EBADMSG;
}

static int refuse_member(struct request_fault *fault, enum member member, const char *why)
{
	fault->error = REPLY_BAD_REQUEST;
	snprintf(fault->text, sizeof(fault->text), "%s %s", member_names[member].p, why);
	return -EBADMSG;
}

/* Reads the whole line, so that a messageId after a fault in another member is found. */
static int collect(struct span line, struct members *members, struct request_fault *fault)
{
	struct json_object_reader reader;
	struct json_member m;
	int more;

	json_object_begin(&reader, line);
	while ((more = json_object_next(&reader, &m)) > 0)
		note_member(members, &m);
	return more < 0 ? refuse_json(fault, &reader) : 0;
}

/* A messageId that can be echoed; empty: none. */
static struct span usable_id(const struct json_value *id)
{
	if ((id->type == JSON_STRING || id->type == JSON_NUMBER) && id->text.n <= REQUEST_ID_MAX)
		return id->text;
	return (struct span){0};
}

static int check_id(const struct members *members, struct request_fault *fault)
{
	const struct json_value *id = &members->value[MEMBER_ID];

	if (members->twice[MEMBER_ID])
		return refuse_member(fault, MEMBER_ID, "is given twice");
	if (!given(id) || id->type == JSON_NULL || usable_id(id).n)
		return 0;
	if (id->text.n > REQUEST_ID_MAX && (id->type == JSON_STRING || id->type == JSON_NUMBER))
		return refuse_member(fault, MEMBER_ID, "is longer than 128 bytes");
	return refuse_member(fault, MEMBER_ID, "must be a string or a number");
}
_Static_assert(REQUEST_ID_MAX == 128, "the sentence above says so");

/* As much of a peer's text as a sentence can carry. */
static void quote(struct span text, char *out, size_t size)
{
	static const char more[] = "...";
	size_t taken, n = printable_copy(text, out, size - sizeof(more) + 1, &taken);

	strcpy(out + n, taken < text.n ? more : "");
}

static int refuse_op(struct request_fault *fault, struct span op)
{
	char quoted[64];

	quote(op, quoted, sizeof(quoted));
	fault->error = REPLY_UNKNOWN_OP;
	snprintf(fault->text, sizeof(fault->text), "unknown op %s", quoted);
	return -EBADMSG;
}

/* The operation of a name or number; 0: none. */
static int find_op(const struct json_value *op)
{
	int64_t number;

	if (op->type == JSON_NUMBER)
		return json_number_integer(op, OP_GET, OP_INCREMENT, &number) ? (int)number : 0;
	for (int i = OP_GET; i < OP_N; i++) {
		if (json_string_is(op, (struct span){ops[i].name, strlen(ops[i].name)}))
			return i;
	}
	return 0;
}

static int check_op(const struct members *members, struct request *r, struct request_fault *fault)
{
	const struct json_value *op = &members->value[MEMBER_OP];

	if (!given(op))
		return refuse_member(fault, MEMBER_OP, "is missing");
	if (members->twice[MEMBER_OP])
		return refuse_member(fault, MEMBER_OP, "is given twice");
	if (op->type != JSON_STRING && op->type != JSON_NUMBER)
		return refuse_member(fault, MEMBER_OP, "must be a name or a number from 1 to 6");
	int found = find_op(op);
	if (!found)
		return refuse_op(fault, op->text);
	r->op = (enum request_op)found;
	return 0;
}

static int check_timeout(const struct members *members, struct request *r,
			 struct request_fault *fault)
{
	const struct json_value *timeout = &members->value[MEMBER_TIMEOUT];
	int64_t ms;

	if (!given(timeout))
		return 0;
	if (members->twice[MEMBER_TIMEOUT])
		return refuse_member(fault, MEMBER_TIMEOUT, "is given twice");
	if (timeout->type != JSON_NUMBER ||
	    !json_number_integer(timeout, 1, REQUEST_TIMEOUT_MAX_MS, &ms))
		return refuse_member(fault, MEMBER_TIMEOUT,
				     "must be a whole number from 1 to 600000");
	r->timeout_ms = (uint32_t)ms;
	return 0;
}
_Static_assert(REQUEST_TIMEOUT_MAX_MS == 600000, "the sentence above says so");

static bool is_string(const struct json_value *v, bool may_be_empty)
{
	return v->type == JSON_STRING && (may_be_empty || json_string_raw(v).n);
}

static bool all_strings(const struct json_value *array, bool may_be_empty)
{
	struct json_array_reader reader;
	struct json_value v;

	if (array->type != JSON_ARRAY)
		return false;
	json_array_begin(&reader, array);
	while (json_array_next(&reader, &v)) {
		if (!is_string(&v, may_be_empty))
			return false;
	}
	return true;
}

static bool is_wanted(const struct json_value *v, enum want want)
{
	switch (want) {
	case WANT_STRING:
		return is_string(v, true);
	case WANT_NUMBER:
		return v->type == JSON_NUMBER;
	case WANT_NOT_NULL:
		return v->type != JSON_NULL;
	case WANT_BOOL:
		return v->type == JSON_TRUE || v->type == JSON_FALSE;
	case WANT_STRINGS:
		return all_strings(v, true);
	case WANT_NAME:
		return is_string(v, false);
	case WANT_NAMES:
		return all_strings(v, false);
	case WANT_OBJECT:
		return v->type == JSON_OBJECT;
	case WANT_N:
		break;
	}
	return false;
}

/* The field for a member that the operation reads. */
static struct json_value *place(struct request *r, enum member member)
{
	switch (member) {
	case MEMBER_KEY:
		return &r->key;
	case MEMBER_END_KEY:
		return &r->end_key;
	case MEMBER_VALUE:
		return &r->value;
	case MEMBER_LIMIT:
		return &r->limit;
	case MEMBER_KEYS:
		return &r->keys;
	case MEMBER_PATTERN:
		return &r->pattern;
	case MEMBER_PATTERNS:
		return &r->patterns;
	case MEMBER_SUBSCRIBE_KEYS:
		return &r->subscribe_keys;
	case MEMBER_SUBSCRIBE_PATTERNS:
		return &r->subscribe_patterns;
	case MEMBER_ACCESS_PATTERN:
		return &r->access_pattern;
	case MEMBER_BODY:
		return &r->body;
	case MEMBER_INITIAL: /* are not kept as written */
	case MEMBER_TOP:
	case MEMBER_FRESH:
	case MEMBER_LOCAL:
	case MEMBER_OP:
	case MEMBER_ID:
	case MEMBER_TIMEOUT:
	case MEMBER_N:
		break;
	}
	return NULL;
}

/* Copies only the members that the operation reads. */
static void keep(struct request *r, enum member member, const struct json_value *v)
{
	if (member == MEMBER_INITIAL)
		r->initial = v->type == JSON_TRUE;
	else if (member == MEMBER_LOCAL)
		r->local = v->type == JSON_TRUE;
	else if (member == MEMBER_TOP)
		r->top = v->type == JSON_TRUE;
	else if (member == MEMBER_FRESH)
		r->fresh = v->type == JSON_TRUE;
	else
		*place(r, member) = *v;
}

static int check_members(const struct members *members, struct request *r,
			 struct request_fault *fault)
{
	const struct op *op = &ops[r->op];

	for (size_t i = 0; i < op->n_members; i++) {
		enum member member = op->members[i].member;
		const struct json_value *v = &members->value[member];
		if (!given(v) && !op->members[i].required)
			continue;
		if (!given(v))
			return refuse_member(fault, member, "is missing");
		if (members->twice[member])
			return refuse_member(fault, member, "is given twice");
		if (!is_wanted(v, op->members[i].want))
			return refuse_member(fault, member, want_faults[op->members[i].want]);
		keep(r, member, v);
	}
	return 0;
}

static int check_names(const struct request *r, struct request_fault *fault)
{
	if (!(ops[r->op].bits & NAMES) || given(&r->key) || given(&r->keys) || given(&r->pattern) ||
	    given(&r->patterns))
		return 0;
	return refuse_member(fault, MEMBER_KEY, "is missing (or keys, pattern, patterns)");
}

int request_parse(struct span line, struct request *r, struct request_fault *fault)
{
	struct members members = {0};

	*r = (struct request){0};
	int error = collect(line, &members, fault);
	fault->id = usable_id(&members.value[MEMBER_ID]);
	if (!error)
		error = check_id(&members, fault);
	if (!error)
		error = check_op(&members, r, fault);
	if (!error)
		error = check_timeout(&members, r, fault);
	if (!error)
		error = check_members(&members, r, fault);
	if (!error)
		error = check_names(r, fault);
	r->id = fault->id;
	return error;
}
