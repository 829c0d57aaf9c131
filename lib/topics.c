#include "topics.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>

#include "codec/json.h"

static int compare(const void *a, const void *b)
{
	const struct topic *x = a, *y = b;

	if (x->pattern != y->pattern)
		return x->pattern ? 1 : -1;
	if (x->n != y->n)
		return x->n < y->n ? -1 : 1;
	return memcmp(x->name, y->name, x->n);
}

static void drop(struct topics *t, struct topic *topic)
{
	tdelete(topic, &t->tree, compare);
	TAILQ_REMOVE(&t->all, topic, link);
	t->n_live -= topic->live;
	free(topic);
}

void topics_clear(struct topics *t)
{
	struct topic *topic;

	while ((topic = TAILQ_FIRST(&t->all)))
		drop(t, topic);
}

/* ---- the names in a request ---- */

/* Handles one name. A negative result ends the walk. fresh is a topic of that name, which is freed
 * unless the function keeps it (*fresh = NULL). */
typedef int name_fn(struct topics *t, struct topic **fresh, uint64_t id);

static int visit(struct topics *t, const struct json_value *name, bool pattern, uint64_t id,
		 name_fn *each)
{
	if (name->type != JSON_STRING)
		return 0; /* the daemon will refuse it */
	struct topic *fresh = calloc(1, sizeof(*fresh) + name->text.n);
	if (!fresh)
		return -ENOMEM;
	fresh->pattern = pattern;
	fresh->by = id;
	fresh->n = json_string_decode(name, fresh->name);
	int result = each(t, &fresh, id);
	free(fresh);
	return result;
}

static int visit_member(struct topics *t, const struct json_value *value, bool pattern, uint64_t id,
			name_fn *each)
{
	struct json_array_reader array;
	struct json_value name;
	int result = 0;

	if (value->type != JSON_ARRAY)
		return visit(t, value, pattern, id, each);
	json_array_begin(&array, value);
	while (result >= 0 && json_array_next(&array, &name) > 0)
		result = visit(t, &name, pattern, id, each);
	return result;
}

/* Visits every name in a request. Returns how many members name topics, or a negative number. */
static int visit_all(struct topics *t, struct span line, uint64_t id, name_fn *each)
{
	static const struct span names[] = {SPAN("key"), SPAN("keys"), SPAN("pattern"),
					    SPAN("patterns")};
	struct json_object_reader reader;
	struct json_member member;
	int n = 0, result = 0;

	json_object_begin(&reader, line);
	while (result >= 0 && json_object_next(&reader, &member) > 0) {
		size_t which = json_string_find(&member.name, names, 4);
		if (which == 4)
			continue;
		n++;
		result = visit_member(t, &member.value, which >= 2, id, each);
	}
	return result < 0 ? result : n;
}

/* ---- what becomes of them ---- */

static struct topic *look_up(const struct topics *t, const struct topic *like)
{
	struct topic **found = tfind(like, &t->tree, compare);

	return found ? *found : NULL;
}

static int add(struct topics *t, struct topic **fresh, uint64_t id)
{
	struct topic *found = look_up(t, *fresh);

	(void)id;
	if (!found) {
		if (!tsearch(*fresh, &t->tree, compare))
			return -ENOMEM;
		found = *fresh;
		TAILQ_INSERT_TAIL(&t->all, found, link);
		*fresh = NULL;
	}
	found->claims++;
	return 0;
}

static int take_out(struct topics *t, struct topic **fresh, uint64_t id)
{
	struct topic *found = look_up(t, *fresh);

	(void)id;
	if (found)
		drop(t, found);
	return 0;
}

static void set_live(struct topics *t, struct topic *topic, bool live)
{
	t->n_live += live;
	t->n_live -= topic->live;
	topic->live = live;
}

/* The topic, if the answered request still counts for it: it was not ended since. */
static struct topic *answered(struct topics *t, const struct topic *fresh, uint64_t id)
{
	struct topic *found = look_up(t, fresh);

	if (!found || id < found->by)
		return NULL;
	found->claims -= found->claims > 0;
	return found;
}

static int make_live(struct topics *t, struct topic **fresh, uint64_t id)
{
	struct topic *found = answered(t, *fresh, id);

	if (found)
		set_live(t, found, true);
	return 0;
}

/* Drops a refused topic, unless another request has named it that was accepted or is not answered
 * yet. */
static int take_back(struct topics *t, struct topic **fresh, uint64_t id)
{
	struct topic *found = answered(t, *fresh, id);

	if (found && !found->live && !found->claims)
		drop(t, found);
	return 0;
}

/* Drops the topics of a request that is not sent for lack of memory. */
static int forget(struct topics *t, struct topic **fresh, uint64_t id)
{
	struct topic *found = look_up(t, *fresh);

	if (found && found->by == id)
		drop(t, found);
	return 0;
}

int topics_sent(struct topics *t, struct span line, uint64_t id, bool subscribes)
{
	int n = visit_all(t, line, id, subscribes ? add : take_out);

	if (n == 0 && !subscribes)
		topics_clear(t);
	if (n < 0 && subscribes)
		visit_all(t, line, id, forget);
	return n < 0 ? n : 0;
}

void topics_answered(struct topics *t, struct span line, uint64_t id, bool accepted)
{
	struct topic *topic;

	if (visit_all(t, line, id, accepted ? make_live : take_back) >= 0 || !accepted)
		return;
	/* No memory for looking up: mark at least the topics that this request named first. */
	TAILQ_FOREACH (topic, &t->all, link) {
		if (topic->by == id)
			set_live(t, topic, true);
	}
}

void topics_ended(struct topics *t, bool pattern, struct span name)
{
	struct topic *topic;

	TAILQ_FOREACH (topic, &t->all, link) {
		if (topic->pattern == pattern && span_equal(topic_name(topic), name))
			break;
	}
	if (topic && topic->claims)
		set_live(t, topic, false); /* another subscribe for it is in flight */
	else if (topic)
		drop(t, topic);
}
