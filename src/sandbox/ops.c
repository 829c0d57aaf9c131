#include "ops.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "codec/json.h"
#include "merge.h"

struct op_call {
	struct store *store;
	const struct pattern *access;
	const struct command *command;
	struct outcome *outcome;
};

void ops_fail(struct outcome *o, int code, const char *error)
{
	o->code = code;
	buf_clear(&o->body);
	buf_addf(&o->body, "\"error\":");
	json_add_string(&o->body, (struct span){error, strlen(error)});
}

static void succeed(struct outcome *o, const char *message)
{
	o->code = 200;
	buf_addf(&o->body, "\"success\":true,\"message\":\"%s\"", message);
}

static void add_record(struct buf *out, const struct record *r)
{
	buf_addf(out, "\"key\":");
	json_add_string(out, r->key);
	buf_addf(out, ",\"value\":");
	json_add_string(out, r->value);
}

static bool may(const struct op_call *call, struct span key)
{
	return !call->access || pattern_matches(call->access, key);
}

/* --- get, set, delete */

static void get(struct op_call *call)
{
	const struct record *r = store_get(call->store, call->command->key);

	if (!r) {
		ops_fail(call->outcome, 404, "Record not found");
		return;
	}
	call->outcome->code = 200;
	add_record(&call->outcome->body, r);
}

static void write_value(struct op_call *call, struct span value, const char *message)
{
	if (value.n > VALUE_MAX) {
		ops_fail(call->outcome, 400, "Value is too long");
		return;
	}
	store_set(call->store, call->command->key, value);
	call->outcome->changed = true;
	succeed(call->outcome, message);
}

static void set(struct op_call *call)
{
	write_value(call, call->command->value, "Record inserted/updated successfully");
}

static void delete (struct op_call *call)
{
	if (!store_delete(call->store, call->command->key)) {
		ops_fail(call->outcome, 404, "Record not found");
		return;
	}
	call->outcome->changed = true;
	succeed(call->outcome, "Record deleted successfully");
}

/* --- patch */

static void patch(struct op_call *call)
{
	const struct record *r = store_get(call->store, call->command->key);
	struct span value = call->command->value;
	struct buf joined = {0};

	if (r && !merge_objects(r->value, value, &joined)) {
		buf_add(&joined, r->value.p, r->value.n);
		buf_add(&joined, value.p, value.n);
	}
	write_value(call, r ? buf_span(&joined) : value, "Record patched successfully");
	buf_release(&joined);
}

/* --- range */

static int64_t range_limit(const struct command *c)
{
	int64_t limit = c->has_limit ? c->limit : RANGE_DEFAULT;

	return limit < RANGE_MAX ? limit : RANGE_MAX;
}

static void range(struct op_call *call)
{
	const struct command *c = call->command;
	struct buf *out = &call->outcome->body;
	int64_t n = 0, limit = range_limit(c);
	bool truncated = false;

	buf_addf(out, "\"records\":[");
	for (const struct record *r = store_from(call->store, c->key); r; r = store_next(r)) {
		if (store_compare(r->key, c->end_key) > 0)
			break;
		if (!may(call, r->key))
			continue;
		truncated = n == limit;
		if (truncated)
			break;
		buf_addf(out, "%s{", n++ ? "," : "");
		add_record(out, r);
		buf_addf(out, "}");
	}
	buf_addf(out, "],\"count\":%lld,\"truncated\":%s", (long long)n,
		 truncated ? "true" : "false");
	call->outcome->code = 200;
}

/* --- increment */

struct number {
	bool whole;
	int64_t integer;
	double real; /* always set */
};

/* Parses a JSON number. */
static bool read_number(struct span text, struct number *n)
{
	char digits[64], *end;

	if (text.n == 0 || text.n >= sizeof(digits) || memchr(text.p, '\0', text.n))
		return false;
	memcpy(digits, text.p, text.n);
	digits[text.n] = '\0';
	if (strspn(digits, "-+.0123456789eE") < text.n || digits[0] == '+')
		return false;
	n->real = strtod(digits, &end);
	if (*end || !isfinite(n->real))
		return false;
	errno = 0;
	n->integer = strtoll(digits, &end, 10);
	n->whole = !*end && errno == 0;
	return true;
}

/* Prints the shortest digits that stand for the same number. */
static void print_real(char out[64], double real)
{
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(out, 64, "%.*g", digits, real);
		if (strtod(out, NULL) == real)
			return;
	}
}

static bool add(const struct number *a, const struct number *b, char out[64])
{
	int64_t sum;

	if (a->whole && b->whole && !__builtin_add_overflow(a->integer, b->integer, &sum)) {
		snprintf(out, 64, "%lld", (long long)sum);
		return true;
	}
	print_real(out, a->real + b->real);
	return isfinite(a->real + b->real);
}

static void increment(struct op_call *call)
{
	const struct record *r = store_get(call->store, call->command->key);
	struct number old = {.whole = true}, by;
	char sum[64];

	if (!read_number(call->command->value, &by)) {
		ops_fail(call->outcome, 400, "Increment must be a number");
	} else if (r && !read_number(r->value, &old)) {
		ops_fail(call->outcome, 400, "Value is not a number");
	} else if (!add(&old, &by, sum)) {
		ops_fail(call->outcome, 400, "Result is out of range");
	} else {
		store_set(call->store, call->command->key, (struct span){sum, strlen(sum)});
		call->outcome->changed = true;
		succeed(call->outcome, "Record incremented successfully");
		buf_addf(&call->outcome->body, ",\"newValue\":%s", sum);
	}
}

/* The sum is what the body ends with. */
void ops_add_rest_sum(struct outcome *o)
{
	struct span body = buf_span(&o->body);
	const char *colon = o->code == 200 ? memrchr(body.p, ':', body.n) : NULL;
	char sum[64];

	if (!colon)
		return;
	size_t n = (size_t)(body.p + body.n - colon - 1);
	memcpy(sum, colon + 1, n);
	buf_addf(&o->body, ",\"result\":%.*s", (int)n, sum);
}

/* --- all operations */

static const struct {
	void (*run)(struct op_call *call);
	bool needs_value, needs_end_key;
} OPS[OP_N] = {
	[OP_GET] = {get, false, false},    [OP_SET] = {set, true, false},
	[OP_PATCH] = {patch, true, false}, [OP_DELETE] = {delete, false, false},
	[OP_RANGE] = {range, false, true}, [OP_INCREMENT] = {increment, true, false},
};

static const char *key_fault(struct span key)
{
	return !key.p            ? "Key is required"
	       : key.n == 0      ? "Key must not be empty"
	       : key.n > KEY_MAX ? "Key is too long"
				 : NULL;
}

/* Why the command is invalid, whatever the store holds; NULL: it is valid. */
static const char *fault(const struct command *c)
{
	if (c->op == OP_NONE)
		return "Invalid operation";
	if (key_fault(c->key))
		return key_fault(c->key);
	if (OPS[c->op].needs_end_key && key_fault(c->end_key))
		return c->end_key.p ? "endKey is empty or too long" : "endKey is required";
	if (OPS[c->op].needs_value && !c->value.p)
		return "Value is required";
	if (OPS[c->op].needs_value && c->value.n == 0)
		return "Value must not be empty";
	return NULL;
}

void ops_run(struct store *s, const struct pattern *access, const struct command *c,
	     struct outcome *o)
{
	struct op_call call = {s, access, c, o};
	const char *wrong = fault(c);

	*o = (struct outcome){0};
	if (wrong)
		ops_fail(o, 400, wrong);
	else if (!may(&call, c->key) || (OPS[c->op].needs_end_key && !may(&call, c->end_key)))
		ops_fail(o, 403, "Access to this key is not allowed by the token");
	else
		OPS[c->op].run(&call);
}
