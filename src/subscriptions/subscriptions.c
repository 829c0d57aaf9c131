#include "subscriptions/subscriptions.h"

#include <stdio.h>
#include <stdlib.h>

#include "access/access.h"
#include "base/buf.h"
#include "codec/json.h"
#include "base/mem.h"
#include "requests/budget.h"
#include "subscriptions/events.h"

enum { STRAGGLER_MS = 60000 }; /* the gap's length when the timestamp of a straggler is no help */

/* A subscribe request that is not live yet. */
struct join {
	struct pending *pending; /* the router's */
	struct peer *peer;
	bool initial;
	size_t charged;            /* subscriptions in the budgets of its client */
	TAILQ_ENTRY(join) of_all;  /* subscriptions::joins */
	TAILQ_ENTRY(join) of_peer; /* subscriptions_peer::joins */
	size_t n;
	struct topic *topics[]; /* n of them; each counts this join in n_joins */
};

TAILQ_HEAD(join_list, join);

struct subscriptions {
	struct subscriptions_settings settings;
	const struct subscriptions_ops *ops;
	void *owner;
	struct router *router;
	struct stats *stats;
	struct topics topics;
	struct fanout *fanout;
	struct resync *resync;
	struct join_list joins;    /* in the order of their requests */
	struct join *cursor;       /* next join of walk_next() */
	struct join *peer_cursor;  /* next join of a walk along one client's */
	size_t n_joins, n_joining; /* joins, and their topics in all */
	uint64_t batch;            /* counts lists */
	size_t batch_limit;        /* joins that a list may try; SIZE_MAX: no limit */
	size_t in_batch;           /* joins that the last list tried */
	struct join *last_tried;   /* the last one that it tried, if it still waits */
	uint64_t ending;           /* counts unsubscribes, for topic::ending */
	bool live;                 /* the main connection has the present token */
	int64_t lost_at;           /* boot clock; 0: clients were not told of a loss */
	bool room; /* a subscription has ended while others were left out of the last list: another
		      list may have room for them */
	bool room_tried; /* the last list was made for that, and has neither come into force nor
			    failed */
	struct buf name; /* scratch: a decoded name */
	struct buf line;
};

static bool hold_back(void *owner, struct sub *sub, struct shared_line *shared)
{
	struct subscriptions *s = owner;
	return resync_hold_back(s->resync, sub, shared);
}

static void peer_changed(void *owner, struct peer *peer)
{
	struct subscriptions *s = owner;
	s->ops->changed(s->owner, peer);
}

static void peer_flush(void *owner, struct peer *peer)
{
	struct subscriptions *s = owner;
	s->ops->flush(s->owner, peer);
}

static const struct fanout_ops fanout_ops = {
	.changed = peer_changed, .flush = peer_flush, .hold_back = hold_back};

static struct resync_settings resync_settings(const struct subscriptions_settings *settings)
{
	return (struct resync_settings){.at_once = settings->reads_at_once,
					.held_bytes = settings->held_bytes};
}

static int64_t wall_ms_of(void *owner)
{
	struct subscriptions *s = owner;
	return s->ops->wall_ms();
}

static const struct resync_ops resync_ops = {.wall_ms = wall_ms_of};

struct subscriptions *subscriptions_new(const struct subscriptions_settings *settings,
					const struct subscriptions_ops *ops, void *owner,
					struct router *router, struct stats *stats, uint64_t seed)
{
	struct subscriptions *s = mem_zalloc(sizeof(*s));
	struct resync_settings resync = resync_settings(settings);

	*s = (struct subscriptions){.settings = *settings,
				    .ops = ops,
				    .owner = owner,
				    .router = router,
				    .stats = stats,
				    .batch_limit = SIZE_MAX};
	TAILQ_INIT(&s->joins);
	topics_init(&s->topics, seed);
	s->fanout = fanout_new(settings->output_soft, &fanout_ops, s, stats);
	s->resync = resync_new(&resync, &resync_ops, s, &s->topics, s->fanout, router, stats);
	return s;
}

void subscriptions_set(struct subscriptions *s, const struct subscriptions_settings *settings)
{
	struct resync_settings resync = resync_settings(settings);

	s->settings = *settings;
	fanout_set(s->fanout, settings->output_soft);
	resync_set(s->resync, &resync);
}

void subscriptions_free(struct subscriptions *s)
{
	resync_free(s->resync);
	fanout_free(s->fanout);
	topics_fini(&s->topics);
	buf_release(&s->name);
	buf_release(&s->line);
	free(s);
}

uint64_t subscriptions_seed(const struct subscriptions *s)
{
	return s->topics.seed;
}

/* ---- clients come and go ---- */

void subscriptions_join(struct subscriptions *s, struct peer *peer)
{
	(void)s;
	topics_join(peer);
	fanout_join(peer);
	resync_join(peer);
	peer->subscriptions = (struct subscriptions_peer){.n = 0};
	TAILQ_INIT(&peer->subscriptions.joins);
}

static void end_sub(struct subscriptions *s, struct sub *sub, bool leaves)
{
	resync_forget(s->resync, sub, leaves);
	budget_remove_subscriptions(sub->peer, 1);
	topics_remove_sub(&s->topics, sub, s->ops->boot_ms());
	if (s->live && s->topics.left_out && !s->room) {
		s->room = true;
		s->ops->wanted(s->owner);
	}
}

static void end_all_subs(struct subscriptions *s, struct peer *peer, bool leaves)
{
	struct sub *sub;

	while ((sub = LIST_FIRST(&peer->topics.subs)))
		end_sub(s, sub, leaves);
}

void subscriptions_leave(struct subscriptions *s, struct peer *peer)
{
	end_all_subs(s, peer, true);
	fanout_leave(peer);
}

void subscriptions_caught_up(struct subscriptions *s, struct peer *peer)
{
	fanout_catch_up(s->fanout, peer);
}

/* ---- the names in a request ---- */

struct naming {
	struct subscriptions *subscriptions;
	void (*each)(void *arg, enum topic_kind kind, struct span text);
	void *arg;
};

static void name_one(const struct naming *n, enum topic_kind kind, const struct json_value *v)
{
	n->each(n->arg, kind, json_string_text(v, &n->subscriptions->name));
}

static void name_list(const struct naming *n, enum topic_kind kind, const struct json_value *list)
{
	struct json_array_reader reader;
	struct json_value v;

	if (!list->text.p)
		return;
	json_array_begin(&reader, list);
	while (json_array_next(&reader, &v))
		name_one(n, kind, &v);
}

/* Calls each() with every key and pattern of a (un)subscribe. The text is valid during the call. */
static void each_name(struct subscriptions *s, const struct request *request,
		      void (*each)(void *arg, enum topic_kind kind, struct span text), void *arg)
{
	struct naming n = {s, each, arg};

	if (request->key.text.p)
		name_one(&n, TOPIC_KEY, &request->key);
	name_list(&n, TOPIC_KEY, &request->keys);
	if (request->pattern.text.p)
		name_one(&n, TOPIC_PATTERN, &request->pattern);
	name_list(&n, TOPIC_PATTERN, &request->patterns);
}

static bool names_any(const struct request *request)
{
	return request->key.text.p || request->keys.text.p || request->pattern.text.p ||
	       request->patterns.text.p;
}

/* ---- joins ---- */

static void release_topic(struct subscriptions *s, struct join *j, struct topic *t)
{
	t->n_joins--;
	j->peer->subscriptions.n--;
	j->peer->subscriptions.n_globs -= topic_is_glob(t->kind, topic_text(t));
	s->n_joining--;
	topics_release(&s->topics, t);
}

static void free_join(struct subscriptions *s, struct join *j)
{
	if (s->last_tried == j)
		s->last_tried = NULL;
	if (s->cursor == j)
		s->cursor = TAILQ_NEXT(j, of_all);
	if (s->peer_cursor == j)
		s->peer_cursor = TAILQ_NEXT(j, of_peer);
	TAILQ_REMOVE(&s->joins, j, of_all);
	TAILQ_REMOVE(&j->peer->subscriptions.joins, j, of_peer);
	s->n_joins--;
	budget_remove_subscriptions(j->peer, j->charged);
	for (size_t i = 0; i < j->n; i++)
		release_topic(s, j, j->topics[i]);
	free(j);
}

/* A walk along the joins, which may be freed meanwhile. One walk at a time. */
static void walk_begin(struct subscriptions *s)
{
	s->cursor = TAILQ_FIRST(&s->joins);
}

static struct join *walk_next(struct subscriptions *s)
{
	struct join *j = s->cursor;

	if (j)
		s->cursor = TAILQ_NEXT(j, of_all);
	return j;
}

/* Answers the request with an error, and frees the join by subscriptions_deferred_end(). */
static void refuse_join(struct subscriptions *s, struct join *j, enum reply_error error,
			const char *text, long retry_ms)
{
	s->stats->subscribes_refused++;
	router_refuse(s->router, j->pending, error, text, retry_ms);
}

const char *subscriptions_deferred_end(struct subscriptions *s, struct pending *p)
{
	struct join *j = p->deferred.request;

	if (!j)
		return NULL;
	p->deferred.request = NULL;
	free_join(s, j);
	const char *why = s->ops->why_not_live(s->owner);
	return why ? why : "the subscription could not be made live within its time";
}

/* Is it covered by the present token, and by the next one if its list was made? */
static bool is_covered(const struct subscriptions *s, const struct topic *t)
{
	return s->live && topic_is_covered(t) && (!s->topics.has_next || topic_is_covered_next(t));
}

static bool is_complete(const struct subscriptions *s, const struct join *j)
{
	for (size_t i = 0; i < j->n; i++) {
		if (!is_covered(s, j->topics[i]))
			return false;
	}
	return true;
}

static void make_live(struct subscriptions *s, struct peer *peer, struct topic *t, bool initial)
{
	struct sub *sub = topics_find_sub(&s->topics, peer, t);

	if (!sub) {
		sub = topics_add_sub(&s->topics, peer, t);
		budget_add_subscriptions(peer, 1);
	}
	if (initial && t->kind == TOPIC_KEY)
		resync_initial(s->resync, sub);
}

/* Makes its subscriptions live: the answer comes before their notifications. */
static void complete(struct subscriptions *s, struct join *j, int64_t now)
{
	struct pending *p = j->pending;
	struct peer *peer = j->peer;

	for (size_t i = 0; i < j->n; i++)
		make_live(s, peer, j->topics[i], j->initial);
	fanout_update_audience(s->fanout, peer);
	p->deferred.request = NULL;
	peer->subscriptions.suspect = false;
	free_join(s, j);
	s->stats->subscribes++;
	router_settle(s->router, p);
	resync_pump(s->resync, now);
}

static void complete_if_ready(struct subscriptions *s, struct join *j, int64_t now)
{
	if (is_complete(s, j) && router_may_settle(s->router, j->pending))
		complete(s, j, now);
}

static void complete_joins(struct subscriptions *s, int64_t now)
{
	struct join *j;

	walk_begin(s);
	while ((j = walk_next(s)))
		complete_if_ready(s, j, now);
}

void subscriptions_deferred_turn(struct subscriptions *s, struct pending *p)
{
	if (p->deferred.request)
		complete_if_ready(s, p->deferred.request, s->ops->mono_ms());
}

/* ---- subscribe ---- */

struct counting {
	struct topics *topics;
	struct peer *peer;
	size_t n;     /* names in the request */
	size_t more;  /* ... not subscribed to by the client */
	size_t globs; /* ... and topic_is_glob() */
	size_t news;  /* ... not subscribed to by any client */
};

static void count_name(void *arg, enum topic_kind kind, struct span text)
{
	struct counting *c = arg;
	struct topic *t = topics_find_topic(c->topics, kind, text, topics_hash(c->topics, text));

	c->n++;
	c->news += !t;
	bool more = !t || !topics_find_sub(c->topics, c->peer, t);
	c->more += more;
	c->globs += more && topic_is_glob(kind, text);
}

struct gathering {
	struct subscriptions *subscriptions;
	struct join *join;
};

static void gather(void *arg, enum topic_kind kind, struct span text)
{
	struct gathering *g = arg;
	struct topic *t = topics_get_topic(&g->subscriptions->topics, kind, text);

	if (!topics_find_sub(&g->subscriptions->topics, g->join->peer, t)) {
		g->join->charged++;
		budget_add_subscriptions(g->join->peer, 1);
	}
	t->n_joins++;
	g->join->peer->subscriptions.n++;
	g->join->peer->subscriptions.n_globs += topic_is_glob(kind, text);
	g->subscriptions->n_joining++;
	g->join->topics[g->join->n++] = t;
}

static struct join *make_join(struct subscriptions *s, struct pending *p,
			      const struct request *request, size_t n)
{
	struct join *j = mem_alloc(sizeof(*j) + n * sizeof(j->topics[0]));
	struct gathering g = {s, j};

	*j = (struct join){.pending = p, .peer = p->peer, .initial = request->initial};
	p->deferred.request = j;
	TAILQ_INSERT_TAIL(&s->joins, j, of_all);
	TAILQ_INSERT_TAIL(&j->peer->subscriptions.joins, j, of_peer);
	s->n_joins++;
	each_name(s, request, gather, &g);
	return j;
}

/* Which limit the request exceeds; NULL: none. */
static const char *too_many(const struct subscriptions *s, const struct peer *peer,
			    const struct counting *c)
{
	const struct subscriptions_settings *max = &s->settings;

	if (c->more && peer->topics.n + peer->subscriptions.n + c->more > max->max_peer_subs)
		return "too many subscriptions of one client";
	if (c->globs &&
	    peer->topics.n_globs + peer->subscriptions.n_globs + c->globs > max->max_peer_globs)
		return "too many patterns of one client that go on behind a *";
	if (c->more && (s->topics.n + s->n_joining + c->more > max->max_subs ||
			s->topics.bytes > max->max_bytes))
		return "too many subscriptions of all clients";
	if (peer->subscriptions.n + c->n > max->max_peer_subs ||
	    s->n_joining + c->n > max->max_subs)
		return "too many subscriptions wait to be made";
	if (c->news && topics_count(&s->topics) + c->news > max->max_topics)
		return "too many different keys and patterns";
	return NULL;
}

static void refuse_over_budget(struct subscriptions *s, struct pending *p, struct budget *lacking)
{
	char text[200];

	s->stats->subscribes_refused++;
	lacking->refused[BUDGET_QUEUE_FULL]++;
	snprintf(text, sizeof(text),
		 "too many subscriptions of all clients of [access %s] (max_subscriptions: %u)",
		 lacking->name, lacking->limits.max_subscriptions);
	router_refuse(s->router, p, REPLY_QUEUE_FULL, text, -1);
}

void subscriptions_subscribe(struct subscriptions *s, struct peer *peer,
			     const struct request *request, int64_t now)
{
	struct counting count = {.topics = &s->topics, .peer = peer};

	each_name(s, request, count_name, &count);
	struct pending *p = router_defer(s->router, peer, request, now);
	const char *no = too_many(s, peer, &count);
	struct budget *lacking = budget_lacking_subscriptions(peer, count.more);
	if (router_is_stopping(s->router)) {
		router_refuse(s->router, p, REPLY_SHUTTING_DOWN, NULL, ROUTER_RESTART_MS);
	} else if (no) {
		s->stats->subscribes_refused++;
		router_refuse(s->router, p, REPLY_QUEUE_FULL, no, -1);
	} else if (lacking) {
		refuse_over_budget(s, p, lacking);
	} else {
		struct join *j = make_join(s, p, request, count.n);
		if (is_complete(s, j))
			complete_if_ready(s, j, now);
		else
			s->ops->wanted(s->owner);
	}
}

/* ---- unsubscribe ---- */

struct ending {
	struct subscriptions *subscriptions;
	struct peer *peer;
	bool waited_for; /* a join waits for one of the names */
};

static void end_name(void *arg, enum topic_kind kind, struct span text)
{
	struct ending *e = arg;
	struct topics *topics = &e->subscriptions->topics;
	struct topic *t = topics_find_topic(topics, kind, text, topics_hash(topics, text));

	if (!t)
		return;
	t->ending = e->subscriptions->ending;
	e->waited_for |= t->n_joins > 0;
	struct sub *sub = topics_find_sub(topics, e->peer, t);
	if (sub)
		end_sub(e->subscriptions, sub, false);
}

/* Drops ended topics, or all, from the join. */
static void end_joining(struct subscriptions *s, struct join *j, bool all)
{
	size_t kept = 0;

	for (size_t i = 0; i < j->n; i++) {
		struct topic *t = j->topics[i];
		if (all || t->ending == s->ending)
			release_topic(s, j, t);
		else
			j->topics[kept++] = t;
	}
	j->n = kept;
}

/* Completing a join may complete others of the client, which moves the cursor. */
static void end_all_joining(struct subscriptions *s, struct peer *peer, bool all)
{
	int64_t now = s->ops->mono_ms();
	struct join *j;

	s->peer_cursor = TAILQ_FIRST(&peer->subscriptions.joins);
	while ((j = s->peer_cursor)) {
		s->peer_cursor = TAILQ_NEXT(j, of_peer);
		end_joining(s, j, all);
		complete_if_ready(s, j, now);
	}
}

void subscriptions_unsubscribe(struct subscriptions *s, struct peer *peer,
			       const struct request *request)
{
	struct ending ending = {s, peer, false};
	bool all = !names_any(request);

	s->ending++;
	if (all)
		end_all_subs(s, peer, false);
	else
		each_name(s, request, end_name, &ending);
	if (all || ending.waited_for)
		end_all_joining(s, peer, all);
	fanout_update_audience(s->fanout, peer);
	fanout_drop_unwanted(&s->topics, peer);
	reply_ok(&s->line, request->id);
	router_say(s->router, peer, buf_span(&s->line), request->id.n > 0);
	buf_take(&s->line, buf_len(&s->line));
}

/* ---- other access rules ---- */

static bool may_read(const struct peer *peer, const struct topic *t)
{
	return access_allows(peer, ACCESS_READ, topic_text(t));
}

/* The first topic that the client may not read; NULL: it may read all. */
static const struct topic *first_forbidden(const struct join *j)
{
	for (size_t i = 0; i < j->n; i++) {
		if (!may_read(j->peer, j->topics[i]))
			return j->topics[i];
	}
	return NULL;
}

static void refuse_forbidden(struct subscriptions *s, struct peer *peer)
{
	struct join *j;

	s->peer_cursor = TAILQ_FIRST(&peer->subscriptions.joins);
	while ((j = s->peer_cursor)) {
		s->peer_cursor = TAILQ_NEXT(j, of_peer);
		const struct topic *forbidden = first_forbidden(j);
		if (!forbidden)
			continue;
		s->stats->requests_forbidden++;
		s->ops->forbidden(s->owner, peer, topic_text(forbidden));
		refuse_join(s, j, REPLY_FORBIDDEN, "the access rules have changed, and forbid it",
			    -1);
	}
}

/* Ends them, with a line for each in s->line. */
static void end_forbidden(struct subscriptions *s, struct peer *peer)
{
	int64_t now = s->ops->wall_ms();
	struct sub *next;

	for (struct sub *sub = LIST_FIRST(&peer->topics.subs); sub; sub = next) {
		struct topic *t = sub->topic;
		next = LIST_NEXT(sub, of_peer);
		if (may_read(peer, t))
			continue;
		s->ops->forbidden(s->owner, peer, topic_text(t));
		events_add_unsubscribed(&s->line, t->kind == TOPIC_PATTERN, topic_text(t), now);
		s->stats->subscriptions_forbidden++;
		/* Held changes are dropped, as if the client left: a pattern that the client may
		 * still read does not match a key that it may not. */
		end_sub(s, sub, true);
	}
}

/* Lines about no key, which no unsubscribe drops from a conflation. */
static void push_lines(struct subscriptions *s, struct peer *peer)
{
	struct span line;

	while ((line = buf_span(&s->line)).n) {
		line.n = (size_t)((const char *)memchr(line.p, '\n', line.n) - line.p) + 1;
		struct shared_line *shared = shared_line_new(line.n, (struct span){0});
		memcpy(shared->text, line.p, line.n);
		fanout_push(s->fanout, peer, shared);
		shared_line_unref(shared);
		buf_take(&s->line, line.n);
	}
}

void subscriptions_restrict(struct subscriptions *s, struct peer *peer)
{
	refuse_forbidden(s, peer);
	end_forbidden(s, peer);
	fanout_update_audience(s->fanout, peer);
	fanout_drop_unwanted(&s->topics, peer);
	push_lines(s, peer);
}

/* ---- changes ---- */

void subscriptions_change(struct subscriptions *s, const struct wire_frame *frame,
			  const struct notification *change)
{
	fanout_change(s->fanout, &s->topics, frame, change,
		      json_string_text(&frame->key, &s->name));
}

/* ---- lists ---- */

bool subscriptions_wants(const struct subscriptions *s)
{
	return s->topics.n || s->n_joins;
}

bool subscriptions_is_stale(const struct subscriptions *s)
{
	struct join *j;

	if (s->room && s->topics.left_out)
		return true;
	TAILQ_FOREACH (j, &s->joins, of_all) {
		for (size_t i = 0; i < j->n; i++) {
			if (!topic_is_covered(j->topics[i]))
				return true;
		}
	}
	return false;
}

static void put_in_batch(struct subscriptions *s, const struct join *j)
{
	for (size_t i = 0; i < j->n; i++)
		j->topics[i]->batch = s->batch;
}

/* Tries joins of suspect clients, or of the others. */
static void try_joins(struct subscriptions *s, bool suspect)
{
	struct join *j;

	TAILQ_FOREACH (j, &s->joins, of_all) {
		if (j->peer->subscriptions.suspect != suspect || is_complete(s, j))
			continue;
		if (s->in_batch == s->batch_limit)
			return;
		put_in_batch(s, j);
		s->in_batch++;
		s->last_tried = j;
	}
}

/* Chooses the joins of the next list: the first batch_limit ones. Joins of suspect clients are
 * tried only without others, so that others need not wait for the search. A covered join, which
 * waits only for earlier answers, stays covered and is not tried. */
static void mark_batch(struct subscriptions *s)
{
	struct join *j;

	s->batch++;
	s->in_batch = 0;
	TAILQ_FOREACH (j, &s->joins, of_all) {
		if (is_complete(s, j))
			put_in_batch(s, j);
	}
	try_joins(s, false);
	if (!s->in_batch)
		try_joins(s, true);
}

static bool is_left_out(const struct subscriptions *s, const struct join *j)
{
	for (size_t i = 0; i < j->n; i++) {
		if (j->topics[i]->batch == s->batch && !topic_is_covered_next(j->topics[i]))
			return true;
	}
	return false;
}

static void refuse_left_out(struct subscriptions *s)
{
	struct join *j;

	walk_begin(s);
	while ((j = walk_next(s))) {
		if (is_left_out(s, j))
			refuse_join(s, j, REPLY_QUEUE_FULL,
				    "a token of the service has no room for this subscription "
				    "beside all others",
				    -1);
	}
}

size_t subscriptions_make_list(struct subscriptions *s, size_t budget, struct buf *list)
{
	mark_batch(s);
	size_t n = topics_make_list(&s->topics, s->batch, budget, s->ops->boot_ms(), list);
	/* a list without any string has shown that there is no room */
	s->room_tried = n && (s->room || s->room_tried);
	s->room = false;
	refuse_left_out(s);
	return n;
}

void subscriptions_list_failed(struct subscriptions *s)
{
	s->room |= s->room_tried;
	s->room_tried = false;
	topics_reject_list(&s->topics);
	complete_joins(s, s->ops->mono_ms());
}

bool subscriptions_list_refused(struct subscriptions *s, const char *why)
{
	subscriptions_list_failed(s);
	if (topics_forget_left(&s->topics)) /* one of these names may be at fault */
		return true;
	if (!s->in_batch)
		return false;
	s->batch_limit = s->in_batch > 1 ? s->in_batch / 2 : 1;
	if (s->in_batch == 1 && s->last_tried) {
		s->last_tried->peer->subscriptions.suspect = true;
		refuse_join(s, s->last_tried, REPLY_UPSTREAM_DOWN, why, -1);
	}
	return s->n_joins > 0;
}

void subscriptions_refuse_all(struct subscriptions *s, const char *why, long retry_ms)
{
	struct join *j;

	walk_begin(s);
	while ((j = walk_next(s))) {
		if (!is_complete(s, j))
			refuse_join(s, j, REPLY_UPSTREAM_DOWN, why, retry_ms);
	}
}

/* ---- the connection ---- */

static void send_line(struct subscriptions *s, const struct topic *t_or_all)
{
	if (t_or_all)
		fanout_push_topic(s->fanout, t_or_all, buf_span(&s->line));
	else
		fanout_push_all(s->fanout, buf_span(&s->line));
	buf_take(&s->line, buf_len(&s->line));
}

/* After a gap the client may know any value of the key, by reading it. */
static void forget_told(const struct topic *t)
{
	for (uint32_t i = 0; t->kind == TOPIC_KEY && i < t->n; i++) {
		t->receivers[i].sub->told = 0;
		t->receivers[i].sub->told_at = t->changes;
	}
}

/* Tells the topic's subscribers of a gap. Its times are by the present wall clock, which may have
 * been corrected since the gap began. */
static void tell_gap(struct subscriptions *s, const struct topic *t, int64_t ago_ms)
{
	int64_t until = s->ops->wall_ms(), since = until - ago_ms;

	s->stats->gaps++;
	if (t->kind == TOPIC_PATTERN)
		events_add_pattern_gap(&s->line, topic_text(t), since, until);
	else
		events_add_key_gap(&s->line, topic_text(t));
	forget_told(t);
	send_line(s, t);
}

/* A topic is no longer covered by the token, or covered again. */
static void coverage_turned(void *owner, struct topic *t)
{
	struct subscriptions *s = owner;
	int64_t now = s->ops->boot_ms();

	if (!topic_is_covered(t)) {
		t->gap_since = now;
		tell_gap(s, t, 0);
	} else if (t->kind == TOPIC_KEY) {
		resync_topic(s->resync, t);
	} else {
		tell_gap(s, t, t->gap_since ? now - t->gap_since : 0);
	}
}

static void tell_connected(struct subscriptions *s)
{
	int64_t ago_ms = s->ops->boot_ms() - s->lost_at;
	struct topic_walk w = {0};
	struct topic *t;

	s->lost_at = 0;
	events_add_connection(&s->line, "connected", NULL, s->ops->wall_ms());
	send_line(s, NULL);
	while ((t = topics_walk(&s->topics, &w))) {
		if (t->n && t->kind == TOPIC_PATTERN)
			tell_gap(s, t, ago_ms);
		else if (t->n && topic_is_covered(t))
			resync_topic(s->resync, t);
	}
}

void subscriptions_live(struct subscriptions *s)
{
	int64_t now = s->ops->mono_ms();

	topics_accept_list(&s->topics, coverage_turned, s);
	s->room_tried = false;
	s->live = true;
	if (s->batch_limit > s->n_joins)
		s->batch_limit = SIZE_MAX;
	else
		s->batch_limit *= 2;
	if (s->lost_at)
		tell_connected(s);
	complete_joins(s, now);
	if (router_is_stopping(s->router))
		return;
	resync_start(s->resync, now);
	if (subscriptions_is_stale(s))
		s->ops->wanted(s->owner);
}

void subscriptions_lost(struct subscriptions *s, int64_t heard_ms)
{
	if (!s->live)
		return;
	s->live = false;
	s->lost_at = heard_ms;
	resync_pause(s->resync); /* what was held back came before it */
	events_add_connection(&s->line, "disconnected", NULL, s->ops->wall_ms());
	send_line(s, NULL);
}

void subscriptions_unreadable(struct subscriptions *s)
{
	resync_doubt(s->resync);
}

void subscriptions_missed(struct subscriptions *s, int64_t since_ms)
{
	struct topic_walk w = {0};
	struct topic *t;

	if (s->lost_at && since_ms < s->lost_at)
		s->lost_at = since_ms;
	if (!s->live || router_is_stopping(s->router))
		return;
	while ((t = topics_walk(&s->topics, &w))) {
		if (t->n)
			tell_gap(s, t, s->ops->boot_ms() - since_ms);
	}
}

struct straggler {
	struct subscriptions *subscriptions;
	int64_t ago_ms;
};

static void tell_straggler(void *owner, struct topic *t)
{
	const struct straggler *straggler = owner;

	tell_gap(straggler->subscriptions, t, straggler->ago_ms);
}

void subscriptions_straggler(struct subscriptions *s, const struct wire_frame *frame,
			     const struct notification *change)
{
	struct span key = json_string_text(&frame->key, &s->name);
	struct topic *t = topics_find_topic(&s->topics, TOPIC_KEY, key, change->key_hash);
	int64_t ago_ms = s->ops->wall_ms() - change->timestamp;
	struct straggler straggler = {s,
				      0 <= ago_ms && ago_ms < STRAGGLER_MS ? ago_ms : STRAGGLER_MS};

	topics_match_patterns(&s->topics, key, tell_straggler, &straggler);
	if (!t || !t->n)
		return;
	tell_straggler(&straggler, t);
	resync_topic(s->resync, t);
	resync_pump(s->resync, s->ops->mono_ms());
}

void subscriptions_without(struct subscriptions *s)
{
	s->live = false;
	if (!s->topics.n)
		s->lost_at = 0;  /* no client remains that was told of the loss */
	resync_pause(s->resync); /* held changes came before the loss */
	/* Some may have subscribed meanwhile to names that the former token covered. */
	topics_forget_lists(&s->topics, s->lost_at ? NULL : coverage_turned, s);
	if (subscriptions_is_stale(s))
		s->ops->wanted(s->owner);
}

void subscriptions_stop(struct subscriptions *s)
{
	resync_pause(s->resync);
}

void subscriptions_end(struct subscriptions *s)
{
	s->live = false; /* the end of the connection to the service is no news any more */
	events_add_connection(&s->line, "disconnected", "shutting_down", s->ops->wall_ms());
	send_line(s, NULL);
}

/* ---- readings ---- */

void subscriptions_read_sent(struct subscriptions *s, void *reading)
{
	resync_read_sent(s->resync, reading);
}

void subscriptions_read_end(struct subscriptions *s, void *reading, enum router_read_end end,
			    const struct wire_frame *answer, int64_t now)
{
	resync_read_end(s->resync, reading, end, answer, now);
}

struct subscriptions_counts subscriptions_counts(const struct subscriptions *s)
{
	return (struct subscriptions_counts){
		.keys = s->topics.live[TOPIC_KEY],
		.patterns = s->topics.live[TOPIC_PATTERN],
		.subscriptions = s->topics.n,
		.waiting = s->n_joins,
		.left_out = s->live ? s->topics.left_out : 0,
		.rereading = resync_waiting(s->resync),
		.bytes = s->topics.bytes,
		.live = s->live,
	};
}

void subscriptions_discount(struct subscriptions_counts *counts, const struct peer *peer)
{
	const struct sub *sub;
	const struct join *j;

	LIST_FOREACH (sub, &peer->topics.subs, of_peer) {
		counts->subscriptions--;
		if (sub->topic->n > 1)
			continue;
		if (sub->topic->kind == TOPIC_KEY)
			counts->keys--;
		else
			counts->patterns--;
	}
	TAILQ_FOREACH (j, &peer->subscriptions.joins, of_peer)
		counts->waiting--;
}

bool subscriptions_covers(const struct subscriptions *s, const struct peer *peer, bool pattern,
			  struct span text)
{
	enum topic_kind kind = pattern ? TOPIC_PATTERN : TOPIC_KEY;
	const struct topic *t =
		topics_find_topic(&s->topics, kind, text, topics_hash(&s->topics, text));

	return t && s->live && topic_is_covered(t) && topics_find_sub(&s->topics, peer, t) != NULL;
}
