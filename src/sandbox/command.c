#include "command.h"

#include <errno.h>
#include <stdlib.h>

#include "codec/json.h"
#include "base/mem.h"

struct reading {
	struct command *command;
	char *room; /* the unused rest of command::memory: a decoded string is never longer than its
		       text */
};

/* Reads a member's value. false: it has a wrong type. */
typedef bool read_member(struct reading *r, const struct json_value *v);

static struct span decode(struct reading *r, const struct json_value *v)
{
	struct span text = {r->room, json_string_decode(v, r->room)};

	r->room[text.n] = '\0'; /* there is room: the text includes its two quotes */
	r->room += text.n + 1;
	return text;
}

static bool read_key(struct reading *r, const struct json_value *v)
{
	if (v->type == JSON_STRING)
		r->command->key = decode(r, v);
	return v->type == JSON_STRING;
}

static bool read_end_key(struct reading *r, const struct json_value *v)
{
	if (v->type == JSON_STRING)
		r->command->end_key = decode(r, v);
	return v->type == JSON_STRING;
}

/* Liberal: any other JSON value stands for its own text. */
static bool read_value(struct reading *r, const struct json_value *v)
{
	if (v->type == JSON_NULL)
		return false;
	r->command->value = v->type == JSON_STRING ? decode(r, v) : v->text;
	return true;
}

static bool read_op(struct reading *r, const struct json_value *v)
{
	int64_t op;

	r->command->op = OP_NONE;
	if (v->type == JSON_NUMBER && json_number_integer(v, OP_NONE + 1, OP_N - 1, &op))
		r->command->op = (enum op)op;
	return true; /* ops_run() reports an unknown one */
}

static bool read_limit(struct reading *r, const struct json_value *v)
{
	if (v->type == JSON_NULL)
		return true;
	r->command->has_limit = true;
	return v->type == JSON_NUMBER && json_number_integer(v, 1, INT64_MAX, &r->command->limit);
}

/* Echoed unchanged. The service documents a number; a client that sends a string gets it back. */
static bool read_id(struct reading *r, const struct json_value *v)
{
	if (v->type == JSON_NUMBER || v->type == JSON_STRING)
		r->command->id = v->text;
	return true;
}

static bool read_partial(struct reading *r, const struct json_value *v)
{
	r->command->partial = v->type == JSON_TRUE;
	return v->type == JSON_TRUE || v->type == JSON_FALSE;
}

static const struct {
	struct span name;
	read_member *read;
	const char *why;
} MEMBERS[] = {
	{{"op", 2}, read_op, ""},
	{{"key", 3}, read_key, "key must be a string"},
	{{"value", 5}, read_value, "value must not be null"},
	{{"endKey", 6}, read_end_key, "endKey must be a string"},
	{{"limit", 5}, read_limit, "limit must be a whole number above 0"},
	{{"messageId", 9}, read_id, ""},
	{{"partialUpdate", 13}, read_partial, "partialUpdate must be true or false"},
	{{"increment", 9}, read_value, "increment must be a number"}, /* REST's name for it */
};

static bool read_any(struct reading *r, const struct json_member *m, const char **why)
{
	for (size_t i = 0; i < sizeof(MEMBERS) / sizeof(*MEMBERS); i++) {
		if (!json_string_is(&m->name, MEMBERS[i].name))
			continue;
		if (MEMBERS[i].read(r, &m->value))
			return true;
		*why = MEMBERS[i].why;
		return false;
	}
	return true;
}

int command_read(struct command *c, struct span text, const char **why)
{
	struct json_object_reader reader;
	struct json_member member;
	int more;
	const char *fault = NULL;

	*c = (struct command){.memory = mem_alloc(text.n + 1)};
	struct reading reading = {c, c->memory};
	json_object_begin(&reader, text);
	/* A wrong member does not end the parsing: the messageId may follow, and the answer needs
	 * it. */
	while ((more = json_object_next(&reader, &member)) > 0) {
		const char *wrong;
		if (!read_any(&reading, &member, &wrong) && !fault)
			fault = wrong;
	}
	if (more < 0)
		fault = "Invalid JSON";
	if (!fault)
		return 0;
	*why = fault;
	return -EINVAL;
}

void command_fini(struct command *c)
{
	free(c->memory);
	c->memory = NULL;
}
