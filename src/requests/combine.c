#include "requests/combine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/map.h"
#include "codec/json.h"
#include "requests/key_order.h"
#include "requests/peer.h"

enum {
	/* Requests that are looked at to find companions, at once and more each millisecond. */
	STEPS_MAX = 20000,
	STEPS_PER_MS = 200,
	LOOK_MAX = 100,  /* at waiting requests, to see whether a new one could go along */
	DIGITS_MAX = 18, /* of a number that is reckoned with */
	CODE_OK = 200,
};

/* Those with one hash of the key, in the order in which they began to wait. */
struct combine_key {
	struct map_node node; /* combine::keys */
	TAILQ_HEAD(, combined) waiting;
};

/* Those that were sent as one, while there are any. */
struct combine_group {
	struct pending *leader;
	TAILQ_HEAD(, combined) companions; /* in the order of effect */
};

struct combined {
	TAILQ_ENTRY(combined) of_key; /* combine_key::waiting */
	struct combine_key *key;      /* NULL: it is not indexed */
	struct pending *pending;
	bool shares_value;              /* an increment that was sent with others */
	uint64_t search;                /* number of the last one in which it was found */
	struct combine_group *group;    /* NULL: it was not sent with others */
	TAILQ_ENTRY(combined) of_group; /* combine_group::companions, unless it is the leader */
	int64_t step, behind; /* of an increment: its own, and of those that go behind it */
};

void combine_fini(struct combine *c)
{
	map_fini(&c->keys); /* which is empty: no request waits any more */
}

/* ---- the index ---- */

static bool read_step(const struct pending *p, int64_t *step)
{
	struct json_object_reader reader;
	struct json_member m;
	struct buf text = {0};
	bool whole = false;

	buf_add(&text, "{", 1);
	buf_add(&text, pending_body(p).p, pending_body(p).n);
	json_object_begin(&reader, buf_span(&text));
	while (json_object_next(&reader, &m) > 0) {
		if (json_string_is(&m.name, SPAN("value")))
			whole = m.value.type == JSON_NUMBER &&
				json_number_integer(&m.value, INT64_MIN / 2, INT64_MAX / 2, step);
	}
	buf_release(&text);
	return whole;
}

static bool is_combined(const struct combine *c, const struct pending *p)
{
	return (p->op == OP_GET && c->kinds & COMBINE_GETS) ||
	       (p->op == OP_INCREMENT && c->kinds & COMBINE_INCREMENTS);
}

static struct combined *make(struct pending *p)
{
	if (!p->combined)
		p->combined = mem_zalloc(sizeof(*p->combined));
	p->combined->pending = p;
	return p->combined;
}

static struct combine_key *key_of(const struct combine *c, const struct pending *p)
{
	struct map_node *node = map_first(&c->keys, key_order_hash_of_key(p->peer, p->key_hash));

	return node ? map_entry(node, struct combine_key, node) : NULL;
}

void combine_add(struct combine *c, struct pending *p)
{
	int64_t step = 0;

	if (!p->key_hash || !is_combined(c, p) || (p->op == OP_INCREMENT && !read_step(p, &step)))
		return;
	struct combine_key *key = key_of(c, p);
	struct combined *e = make(p);
	if (!key) {
		key = mem_zalloc(sizeof(*key));
		TAILQ_INIT(&key->waiting);
		map_add(&c->keys, &key->node, key_order_hash_of_key(p->peer, p->key_hash));
	}
	e->key = key;
	e->step = step;
	TAILQ_INSERT_TAIL(&key->waiting, e, of_key);
	c->waiting++;
}

void combine_unindex(struct combine *c, struct pending *p)
{
	struct combined *e = p->combined;

	if (!e || !e->key)
		return;
	struct combine_key *key = e->key;
	e->key = NULL;
	TAILQ_REMOVE(&key->waiting, e, of_key);
	c->waiting--;
	if (!TAILQ_EMPTY(&key->waiting))
		return;
	map_remove(&c->keys, &key->node);
	free(key);
}

void combine_drop(struct combine *c, struct pending *p)
{
	combine_unindex(c, p);
	combine_leave(p);
}

/* ---- who goes along ---- */

/* "op":1,"key":"…" without what follows: of the same kind and key if that is the same. */
static struct span kind_and_key(const struct pending *p)
{
	struct span body = pending_body(p);
	size_t i = sizeof("\"op\":1,\"key\":\"") - 1;

	while (body.p[i] != '"')
		i += body.p[i] == '\\' ? 2 : 1;
	return (struct span){body.p, i + 1};
}

static bool is_alike(const struct pending *p, const struct pending *q)
{
	return p->op == q->op && span_equal(kind_and_key(p), kind_and_key(q));
}

/* Could q, which waits, go along with p? */
static bool is_companion(const struct pending *p, const struct pending *q)
{
	return q != p && is_alike(p, q) && !q->peer->sched.on_trial;
}

bool combine_has_other(const struct combine *c, const struct pending *p)
{
	const struct combined *e;
	unsigned looks = 0;

	if (!is_combined(c, p) || !p->key_hash || p->peer->sched.on_trial)
		return false;
	const struct combine_key *key = key_of(c, p);
	if (!key)
		return false;
	TAILQ_FOREACH (e, &key->waiting, of_key) {
		if (is_companion(p, e->pending))
			return true;
		if (++looks == LOOK_MAX)
			return false;
	}
	return false;
}

static bool spend(struct combine *c)
{
	if (!c->steps)
		return false;
	c->steps--;
	return true;
}

/* May q take effect before this earlier request of its client for the key, or at once with it? */
static bool may_join(const struct combine *c, const struct pending *earlier,
		     const struct pending *q)
{
	return earlier->op == q->op &&
	       (request_op_is_read(q->op) ||
		(earlier->combined && earlier->combined->search == c->searches));
}

/* Does an earlier request of its client wait for the key that q would overtake? Yes, if there are
 * no steps left to find out. */
static bool is_behind_another(struct combine *c, const struct pending *q)
{
	const struct pending *other;

	TAILQ_FOREACH (other, &q->peer->sched.waiting, waiting) {
		if (other == q)
			return false;
		if ((other->key_hash == q->key_hash && !may_join(c, other, q)) || !spend(c))
			return true;
	}
	return true;
}

static void refill(struct combine *c, int64_t now)
{
	int64_t more = (now - c->at) * STEPS_PER_MS;

	if (more > 0)
		c->steps = more < STEPS_MAX - (int64_t)c->steps ? c->steps + (unsigned)more
								: STEPS_MAX;
	c->at = now;
}

static int by_client_and_order(const void *a, const void *b)
{
	const struct pending *p = *(struct pending *const *)a, *q = *(struct pending *const *)b;

	if (p->peer->number != q->peer->number)
		return p->peer->number < q->peer->number ? -1 : 1;
	return pending_is_before(p, q) ? -1 : 1;
}

/* Those that are alike, by client and in its order. */
static struct pending **find_alike(struct combine *c, const struct pending *p, size_t *n)
{
	struct combine_key *key = key_of(c, p);
	struct pending **found = NULL;
	struct combined *e;

	*n = 0;
	for (e = key ? TAILQ_FIRST(&key->waiting) : NULL; e && spend(c);
	     e = TAILQ_NEXT(e, of_key)) {
		if (!is_companion(p, e->pending))
			continue;
		if ((*n & (*n - 1)) == 0) /* grows at each power of two */
			found = mem_resize(found, (*n ? 2 * *n : 1) * sizeof(struct pending *));
		found[(*n)++] = e->pending;
	}
	if (*n)
		qsort(found, *n, sizeof(struct pending *), by_client_and_order);
	return found;
}

struct pending **combine_find(struct combine *c, const struct pending *p,
			      bool (*may_go)(void *owner, const struct pending *p), void *owner,
			      int64_t now, size_t *n)
{
	size_t n_alike;

	*n = 0;
	if (!p->key_hash || p->peer->sched.on_trial || !is_combined(c, p))
		return NULL;
	refill(c, now);
	c->searches++;
	struct pending **found = find_alike(c, p, &n_alike);
	for (size_t i = 0; i < n_alike; i++) {
		struct pending *q = found[i];
		if (is_behind_another(c, q) || !may_go(owner, q))
			continue;
		q->combined->search = c->searches;
		found[(*n)++] = q;
	}
	return found;
}

/* ---- going along ---- */

/* The sum of all; of each, what those behind it add. */
static bool add_up(struct pending *leader, struct pending *const *companions, size_t n,
		   int64_t *sum)
{
	int64_t step;

	*sum = 0;
	for (size_t i = n; i-- > 0;) {
		companions[i]->combined->behind = *sum;
		if (__builtin_add_overflow(*sum, companions[i]->combined->step, sum))
			return false;
	}
	make(leader)->behind = *sum;
	return read_step(leader, &step) && !__builtin_add_overflow(*sum, step, sum);
}

bool combine_join(struct pending *leader, struct pending *const *companions, size_t n,
		  struct buf *body)
{
	struct span start = kind_and_key(leader);
	struct combined *lead = make(leader);
	int64_t sum;

	if (leader->op == OP_INCREMENT) {
		if (!add_up(leader, companions, n, &sum))
			return false;
		buf_add(body, start.p, start.n);
		buf_addf(body, ",\"value\":%" PRId64 "}", sum);
		lead->shares_value = true;
	}
	struct combine_group *g = lead->group = mem_alloc(sizeof(*g));
	g->leader = leader;
	TAILQ_INIT(&g->companions);
	for (size_t i = 0; i < n; i++) {
		struct combined *e = companions[i]->combined;
		e->group = g;
		e->shares_value = lead->shares_value;
		TAILQ_INSERT_TAIL(&g->companions, e, of_group);
	}
	return true;
}

bool combine_shares_value(const struct pending *p)
{
	return p->combined && p->combined->shares_value;
}

/* The leader goes: the first companion leads the others from now on. */
static struct pending *inherit(struct combine_group *g)
{
	struct combined *next = TAILQ_FIRST(&g->companions);

	if (!next) {
		free(g);
		return NULL;
	}
	TAILQ_REMOVE(&g->companions, next, of_group);
	g->leader = next->pending;
	return g->leader;
}

struct pending *combine_leave(struct pending *p)
{
	struct combined *e = p->combined;
	struct pending *heir = NULL;

	if (!e)
		return NULL;
	if (e->group && e->group->leader == p)
		heir = inherit(e->group);
	else if (e->group)
		TAILQ_REMOVE(&e->group->companions, e, of_group);
	free(e);
	p->combined = NULL;
	return heir;
}

struct pending **combine_disband(struct pending *leader, size_t *n)
{
	struct combine_group *g = leader->combined ? leader->combined->group : NULL;
	struct pending **all = NULL;
	struct combined *e;

	*n = 0;
	if (!g)
		return NULL;
	TAILQ_FOREACH (e, &g->companions, of_group) {
		e->group = NULL;
		if ((*n & (*n - 1)) == 0)
			all = mem_resize(all, (*n ? 2 * *n : 1) * sizeof(struct pending *));
		all[(*n)++] = e->pending;
	}
	leader->combined->group = NULL;
	free(g);
	return all;
}

/* ---- answers to increments ---- */

/* A number as digits without its point, and how many stand behind that. */
static bool read_decimal(struct span text, int64_t *digits, unsigned *fraction)
{
	bool negative = text.n && text.p[0] == '-', point = false;

	*digits = 0;
	*fraction = 0;
	if (text.n - negative > DIGITS_MAX)
		return false;
	for (size_t i = negative; i < text.n; i++) {
		char c = text.p[i];
		if (c == '.' && !point) {
			point = true;
			continue;
		}
		if (c < '0' || c > '9')
			return false;
		*digits = 10 * *digits + (c - '0');
		*fraction += point;
	}
	*digits = negative ? -*digits : *digits;
	return text.n > negative;
}

static void write_decimal(struct buf *out, int64_t digits, unsigned fraction)
{
	uint64_t size = digits < 0 ? -(uint64_t)digits : (uint64_t)digits, scale = 1;

	for (unsigned i = 0; i < fraction; i++)
		scale *= 10;
	buf_addf(out, "%s%" PRIu64, digits < 0 ? "-" : "", size / scale);
	if (fraction)
		buf_addf(out, ".%0*" PRIu64, (int)fraction, size % scale);
}

/* The value less what was added behind p. */
static bool write_value(struct buf *out, struct span value, int64_t behind)
{
	unsigned fraction;
	int64_t digits;

	if (!read_decimal(value, &digits, &fraction))
		return false;
	for (unsigned i = 0; i < fraction; i++) {
		if (__builtin_mul_overflow(behind, 10, &behind))
			return false;
	}
	if (__builtin_sub_overflow(digits, behind, &digits))
		return false;
	write_decimal(out, digits, fraction);
	return true;
}

bool combine_answer(const struct pending *p, const struct wire_frame *frame, struct buf *text,
		    struct wire_frame *own)
{
	struct json_object_reader reader;
	struct json_member m;
	const char *end = frame->text.p + frame->text.n;
	struct span value = {0};

	*own = *frame;
	if (frame->code != CODE_OK || !p->combined->behind)
		return true;
	json_object_begin(&reader, frame->text);
	while (json_object_next(&reader, &m) > 0) {
		if (json_string_is(&m.name, SPAN("newValue")) && m.value.type == JSON_NUMBER)
			value = m.value.text;
	}
	if (!value.p)
		return false;
	buf_add(text, frame->text.p, (size_t)(value.p - frame->text.p));
	if (!write_value(text, value, p->combined->behind))
		return false;
	buf_add(text, value.p + value.n, (size_t)(end - value.p) - value.n);
	wire_parse(buf_span(text), own);
	return true;
}
