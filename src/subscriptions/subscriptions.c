#include "subscriptions/subscriptions.h"

#include <stdlib.h>

#include "access/access.h"
#include "base/buf.h"
#include "codec/json.h"
#include "base/mem.h"
#include "subscriptions/events.h"

enum { STRAGGLER_MS = 60000 }; /* since when a change is missed whose timestamp is of no help */

/* A subscribe request that is not live yet. */
struct join {
	struct pending *pending; /* the router's */
	struct peer *peer;
	bool initial;
	TAILQ_ENTRY(join) of_all;  /* feed::joins */
	TAILQ_ENTRY(join) of_peer; /* peer::joins */
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
	struct join *cursor;       /* the next one of a walk along them */
	struct join *peer_cursor;  /* ... of one client's */
	size_t n_joins, n_joining; /* and the topics that they wait for */
	uint64_t batch;            /* numbers the lists */
	size_t batch_limit;        /* joins that a list may have; SIZE_MAX: all */
	size_t in_batch;           /* joins that the last one has */
	struct join *last_tried;   /* the last of them, if it still waits */
	uint64_t ending;           /* numbers unsubscribes, for topic::ending */
	bool live;                 /* the present token's connection is believed */
	int64_t lost_at;           /* boot clock; 0: clients were not told that it is lost */
	bool room; /* something has ended while something was left out of the list that was made
		      last: there may be room for it in another one */
	bool room_tried; /* the list that was made last is that one, and nothing came of it yet */
	struct buf name; /* decoded */
	struct buf line;
};

static bool holds(void *owner, struct sub *sub, struct shared_line *shared)
{
	struct subscriptions *f = owner;
	return resync_hold(f->resync, sub, shared);
}

static void peer_changed(void *owner, struct peer *peer)
{
	struct subscriptions *f = owner;
	f->ops->changed(f->owner, peer);
}

static void peer_flush(void *owner, struct peer *peer)
{
	struct subscriptions *f = owner;
	f->ops->flush(f->owner, peer);
}

static const struct fanout_ops fanout_ops = {
	.changed = peer_changed, .flush = peer_flush, .hold = holds};

static struct resync_settings resync_settings(const struct subscriptions_settings *s)
{
	return (struct resync_settings){.at_once = s->reads_at_once, .held_bytes = s->held_bytes};
}

static int64_t reread_asks_time(void *owner)
{
	struct subscriptions *f = owner;
	return f->ops->wall_ms();
}

static const struct resync_ops resync_ops = {.wall_ms = reread_asks_time};

struct subscriptions *subscriptions_new(const struct subscriptions_settings *settings,
					const struct subscriptions_ops *ops, void *owner,
					struct router *router, struct stats *stats, uint64_t seed)
{
	struct subscriptions *f = mem_zalloc(sizeof(*f));
	struct resync_settings resync = resync_settings(settings);

	*f = (struct subscriptions){.settings = *settings,
				    .ops = ops,
				    .owner = owner,
				    .router = router,
				    .stats = stats,
				    .batch_limit = SIZE_MAX};
	TAILQ_INIT(&f->joins);
	topics_init(&f->topics, seed);
	f->fanout = fanout_new(settings->output_soft, &fanout_ops, f, stats);
	f->resync = resync_new(&resync, &resync_ops, f, &f->topics, f->fanout, router, stats);
	return f;
}

void subscriptions_set(struct subscriptions *f, const struct subscriptions_settings *settings)
{
	struct resync_settings resync = resync_settings(settings);

	f->settings = *settings;
	fanout_set(f->fanout, settings->output_soft);
	resync_set(f->resync, &resync);
}

void subscriptions_free(struct subscriptions *f)
{
	resync_free(f->resync);
	fanout_free(f->fanout);
	topics_fini(&f->topics);
	buf_release(&f->name);
	buf_release(&f->line);
	free(f);
}

uint64_t subscriptions_seed(const struct subscriptions *f)
{
	return f->topics.seed;
}

/* ---- clients come and go ---- */

void subscriptions_join(struct subscriptions *f, struct peer *peer)
{
	(void)f;
	topics_join(peer);
	fanout_join(peer);
	resync_join(peer);
	peer->subscriptions = (struct subscriptions_peer){.n = 0};
	TAILQ_INIT(&peer->subscriptions.joins);
}

static void end_sub(struct subscriptions *f, struct sub *sub, bool leaves)
{
	resync_forget(f->resync, sub, leaves);
	topics_remove(&f->topics, sub);
	if (f->live && f->topics.left_out && !f->room) {
		f->room = true;
		f->ops->wanted(f->owner);
	}
}

static void end_all_subs(struct subscriptions *f, struct peer *peer, bool leaves)
{
	struct sub *sub;

	while ((sub = LIST_FIRST(&peer->topics.subs)))
		end_sub(f, sub, leaves);
}

void subscriptions_leave(struct subscriptions *f, struct peer *peer)
{
	end_all_subs(f, peer, true);
	fanout_leave(peer);
}

void subscriptions_caught_up(struct subscriptions *f, struct peer *peer)
{
	fanout_catch_up(f->fanout, peer);
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

/* Every key and pattern that a (un)subscribe names. The text is valid during the call. */
static void each_name(struct subscriptions *f, const struct request *request,
		      void (*each)(void *arg, enum topic_kind kind, struct span text), void *arg)
{
	struct naming n = {f, each, arg};

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

static void release_topic(struct subscriptions *f, struct join *j, struct topic *t)
{
	t->n_joins--;
	j->peer->subscriptions.n--;
	j->peer->subscriptions.n_globs -= topic_is_glob(t->kind, topic_text(t));
	f->n_joining--;
	topics_release(&f->topics, t);
}

static void free_join(struct subscriptions *f, struct join *j)
{
	if (f->last_tried == j)
		f->last_tried = NULL;
	if (f->cursor == j)
		f->cursor = TAILQ_NEXT(j, of_all);
	if (f->peer_cursor == j)
		f->peer_cursor = TAILQ_NEXT(j, of_peer);
	TAILQ_REMOVE(&f->joins, j, of_all);
	TAILQ_REMOVE(&j->peer->subscriptions.joins, j, of_peer);
	f->n_joins--;
	for (size_t i = 0; i < j->n; i++)
		release_topic(f, j, j->topics[i]);
	free(j);
}

/* A walk along the joins, whatever becomes of them meanwhile. One walk at a time. */
static void walk_begin(struct subscriptions *f)
{
	f->cursor = TAILQ_FIRST(&f->joins);
}

static struct join *walk_next(struct subscriptions *f)
{
	struct join *j = f->cursor;

	if (j)
		f->cursor = TAILQ_NEXT(j, of_all);
	return j;
}

/* Answers the request with an error. That ends it by subscriptions_deferred_end(). */
static void refuse_join(struct subscriptions *f, struct join *j, enum reply_error error,
			const char *text, long retry_ms)
{
	f->stats->subscribes_refused++;
	router_refuse(f->router, j->pending, error, text, retry_ms);
}

const char *subscriptions_deferred_end(struct subscriptions *f, struct pending *p)
{
	struct join *j = p->deferred.request;

	if (!j)
		return NULL;
	p->deferred.request = NULL;
	free_join(f, j);
	const char *why = f->ops->why_not_live(f->owner);
	return why ? why : "the subscription could not be made live within its time";
}

/* Is it covered now, and by the token that is on its way as well, if there is one? */
static bool is_covered(const struct subscriptions *f, const struct topic *t)
{
	return f->live && topic_is_covered(t) && (!f->topics.has_next || topic_is_covered_next(t));
}

static bool is_complete(const struct subscriptions *f, const struct join *j)
{
	for (size_t i = 0; i < j->n; i++) {
		if (!is_covered(f, j->topics[i]))
			return false;
	}
	return true;
}

static void make_live(struct subscriptions *f, struct peer *peer, struct topic *t, bool initial)
{
	struct sub *sub = topics_find(&f->topics, peer, t);

	if (!sub)
		sub = topics_add(&f->topics, peer, t);
	if (initial && t->kind == TOPIC_KEY)
		resync_initial(f->resync, sub);
}

/* Its subscriptions are live from now on: first the answer, then what follows from them. */
static void complete(struct subscriptions *f, struct join *j, int64_t now)
{
	struct pending *p = j->pending;
	struct peer *peer = j->peer;

	for (size_t i = 0; i < j->n; i++)
		make_live(f, peer, j->topics[i], j->initial);
	fanout_audience(f->fanout, peer);
	p->deferred.request = NULL;
	peer->subscriptions.suspect = false;
	free_join(f, j);
	f->stats->subscribes++;
	router_settle(f->router, p);
	resync_pump(f->resync, now);
}

static void complete_if_ready(struct subscriptions *f, struct join *j, int64_t now)
{
	if (is_complete(f, j) && router_may_settle(f->router, j->pending))
		complete(f, j, now);
}

static void complete_joins(struct subscriptions *f, int64_t now)
{
	struct join *j;

	walk_begin(f);
	while ((j = walk_next(f)))
		complete_if_ready(f, j, now);
}

void subscriptions_deferred_turn(struct subscriptions *f, struct pending *p)
{
	if (p->deferred.request)
		complete_if_ready(f, p->deferred.request, f->ops->mono_ms());
}

/* ---- subscribe ---- */

struct counting {
	struct topics *topics;
	struct peer *peer;
	size_t n;     /* names */
	size_t more;  /* ... that the client is not subscribed to yet */
	size_t globs; /* ... and that are costly */
	size_t news;  /* ... that nobody is */
};

static void count_name(void *arg, enum topic_kind kind, struct span text)
{
	struct counting *c = arg;
	struct topic *t = topics_find_topic(c->topics, kind, text, topics_hash(c->topics, text));

	c->n++;
	c->news += !t;
	bool more = !t || !topics_find(c->topics, c->peer, t);
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
	struct topic *t = topics_topic(&g->subscriptions->topics, kind, text);

	t->n_joins++;
	g->join->peer->subscriptions.n++;
	g->join->peer->subscriptions.n_globs += topic_is_glob(kind, text);
	g->subscriptions->n_joining++;
	g->join->topics[g->join->n++] = t;
}

static struct join *make_join(struct subscriptions *f, struct pending *p,
			      const struct request *request, size_t n)
{
	struct join *j = mem_alloc(sizeof(*j) + n * sizeof(j->topics[0]));
	struct gathering g = {f, j};

	*j = (struct join){.pending = p, .peer = p->peer, .initial = request->initial};
	p->deferred.request = j;
	TAILQ_INSERT_TAIL(&f->joins, j, of_all);
	TAILQ_INSERT_TAIL(&j->peer->subscriptions.joins, j, of_peer);
	f->n_joins++;
	each_name(f, request, gather, &g);
	return j;
}

/* Why what a request names is too much; NULL: it is not. */
static const char *too_many(const struct subscriptions *f, const struct peer *peer,
			    const struct counting *c)
{
	const struct subscriptions_settings *s = &f->settings;

	if (c->more && peer->topics.n + peer->subscriptions.n + c->more > s->max_peer_subs)
		return "too many subscriptions of one client";
	if (c->globs &&
	    peer->topics.n_globs + peer->subscriptions.n_globs + c->globs > s->max_peer_globs)
		return "too many patterns of one client that go on behind a *";
	if (c->more &&
	    (f->topics.n + f->n_joining + c->more > s->max_subs || f->topics.bytes > s->max_bytes))
		return "too many subscriptions of all clients";
	if (peer->subscriptions.n + c->n > s->max_peer_subs || f->n_joining + c->n > s->max_subs)
		return "too many subscriptions wait to be made";
	if (c->news && topics_topics(&f->topics) + c->news > s->max_topics)
		return "too many different keys and patterns";
	return NULL;
}

void subscriptions_subscribe(struct subscriptions *f, struct peer *peer,
			     const struct request *request, int64_t now)
{
	struct counting count = {.topics = &f->topics, .peer = peer};

	each_name(f, request, count_name, &count);
	struct pending *p = router_defer(f->router, peer, request, now);
	const char *no = too_many(f, peer, &count);
	if (router_is_stopping(f->router)) {
		router_refuse(f->router, p, REPLY_SHUTTING_DOWN, NULL, -1);
	} else if (no) {
		f->stats->subscribes_refused++;
		router_refuse(f->router, p, REPLY_QUEUE_FULL, no, -1);
	} else {
		struct join *j = make_join(f, p, request, count.n);
		if (is_complete(f, j))
			complete_if_ready(f, j, now);
		else
			f->ops->wanted(f->owner);
	}
}

/* ---- unsubscribe ---- */

struct ending {
	struct subscriptions *subscriptions;
	struct peer *peer;
	bool waited_for; /* something that it names */
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
	struct sub *sub = topics_find(topics, e->peer, t);
	if (sub)
		end_sub(e->subscriptions, sub, false);
}

/* What the client's own joins still wait for and has been ended is not waited for. */
static void end_joining(struct subscriptions *f, struct join *j, bool all)
{
	size_t kept = 0;

	for (size_t i = 0; i < j->n; i++) {
		struct topic *t = j->topics[i];
		if (all || t->ending == f->ending)
			release_topic(f, j, t);
		else
			j->topics[kept++] = t;
	}
	j->n = kept;
}

/* To complete one may complete others of the client as well, which moves the cursor along. */
static void end_all_joining(struct subscriptions *f, struct peer *peer, bool all)
{
	int64_t now = f->ops->mono_ms();
	struct join *j;

	f->peer_cursor = TAILQ_FIRST(&peer->subscriptions.joins);
	while ((j = f->peer_cursor)) {
		f->peer_cursor = TAILQ_NEXT(j, of_peer);
		end_joining(f, j, all);
		complete_if_ready(f, j, now);
	}
}

void subscriptions_unsubscribe(struct subscriptions *f, struct peer *peer,
			       const struct request *request)
{
	struct ending ending = {f, peer, false};
	bool all = !names_any(request);

	f->ending++;
	if (all)
		end_all_subs(f, peer, false);
	else
		each_name(f, request, end_name, &ending);
	if (all || ending.waited_for)
		end_all_joining(f, peer, all);
	fanout_audience(f->fanout, peer);
	fanout_forget(&f->topics, peer);
	reply_ok(&f->line, request->id);
	router_say(f->router, peer, buf_span(&f->line), request->id.n > 0);
	buf_take(&f->line, buf_len(&f->line));
}

/* ---- other access rules ---- */

static bool may_read(const struct peer *peer, const struct topic *t)
{
	return access_allows(peer, ACCESS_READ, topic_text(t));
}

/* The first of those that are asked for; NULL: it may read them all. */
static const struct topic *first_forbidden(const struct join *j)
{
	for (size_t i = 0; i < j->n; i++) {
		if (!may_read(j->peer, j->topics[i]))
			return j->topics[i];
	}
	return NULL;
}

static void refuse_forbidden(struct subscriptions *f, struct peer *peer)
{
	struct join *j;

	f->peer_cursor = TAILQ_FIRST(&peer->subscriptions.joins);
	while ((j = f->peer_cursor)) {
		f->peer_cursor = TAILQ_NEXT(j, of_peer);
		const struct topic *forbidden = first_forbidden(j);
		if (!forbidden)
			continue;
		f->stats->requests_forbidden++;
		f->ops->forbidden(f->owner, peer, topic_text(forbidden));
		refuse_join(f, j, REPLY_FORBIDDEN, "the access rules have changed, and forbid it",
			    -1);
	}
}

/* A line for each into f->line. */
static void end_forbidden(struct subscriptions *f, struct peer *peer)
{
	int64_t now = f->ops->wall_ms();
	struct sub *next;

	for (struct sub *sub = LIST_FIRST(&peer->topics.subs); sub; sub = next) {
		struct topic *t = sub->topic;
		next = LIST_NEXT(sub, of_peer);
		if (may_read(peer, t))
			continue;
		f->ops->forbidden(f->owner, peer, topic_text(t));
		events_unsubscribed(&f->line, t->kind == TOPIC_PATTERN, topic_text(t), now);
		f->stats->subscriptions_forbidden++;
		/* What is held back of it is dropped, as if the client had left: a pattern that it
		 * still may read does not match a key that it may not. */
		end_sub(f, sub, true);
	}
}

/* About no key: they stay, whatever else is unsubscribed. */
static void push_lines(struct subscriptions *f, struct peer *peer)
{
	struct span line;

	while ((line = buf_span(&f->line)).n) {
		line.n = (size_t)((const char *)memchr(line.p, '\n', line.n) - line.p) + 1;
		struct shared_line *shared = shared_line_new(line.n, (struct span){0});
		memcpy(shared->text, line.p, line.n);
		fanout_push(f->fanout, peer, shared);
		shared_line_unref(shared);
		buf_take(&f->line, line.n);
	}
}

void subscriptions_restrict(struct subscriptions *f, struct peer *peer)
{
	refuse_forbidden(f, peer);
	end_forbidden(f, peer);
	fanout_audience(f->fanout, peer);
	fanout_forget(&f->topics, peer);
	push_lines(f, peer);
}

/* ---- changes ---- */

void subscriptions_change(struct subscriptions *f, const struct wire_frame *frame,
			  const struct notification *change)
{
	fanout_change(f->fanout, &f->topics, frame, change,
		      json_string_text(&frame->key, &f->name));
}

/* ---- lists ---- */

bool subscriptions_wants(const struct subscriptions *f)
{
	return f->topics.n || f->n_joins;
}

bool subscriptions_is_stale(const struct subscriptions *f)
{
	struct join *j;

	if (f->room && f->topics.left_out)
		return true;
	TAILQ_FOREACH (j, &f->joins, of_all) {
		for (size_t i = 0; i < j->n; i++) {
			if (!topic_is_covered(j->topics[i]))
				return true;
		}
	}
	return false;
}

static void put_in_batch(struct subscriptions *f, const struct join *j)
{
	for (size_t i = 0; i < j->n; i++)
		j->topics[i]->batch = f->batch;
}

/* Of clients of which the service has refused names, or of the others. */
static void try_joins(struct subscriptions *f, bool suspect)
{
	struct join *j;

	TAILQ_FOREACH (j, &f->joins, of_all) {
		if (j->peer->subscriptions.suspect != suspect || is_complete(f, j))
			continue;
		if (f->in_batch == f->batch_limit)
			return;
		put_in_batch(f, j);
		f->in_batch++;
		f->last_tried = j;
	}
}

/* The first joins, as many as may be tried at once, are part of the batch. Whoever has named
 * something that the service refuses is tried by himself, so that others need not wait while it is
 * found out what it was this time. A join that is covered and only waits for answers before its own
 * has to stay so, and is not being tried. */
static void mark_batch(struct subscriptions *f)
{
	struct join *j;

	f->batch++;
	f->in_batch = 0;
	TAILQ_FOREACH (j, &f->joins, of_all) {
		if (is_complete(f, j))
			put_in_batch(f, j);
	}
	try_joins(f, false);
	if (!f->in_batch)
		try_joins(f, true);
}

static bool is_left_out(const struct subscriptions *f, const struct join *j)
{
	for (size_t i = 0; i < j->n; i++) {
		if (j->topics[i]->batch == f->batch && !topic_is_covered_next(j->topics[i]))
			return true;
	}
	return false;
}

static void refuse_left_out(struct subscriptions *f)
{
	struct join *j;

	walk_begin(f);
	while ((j = walk_next(f))) {
		if (is_left_out(f, j))
			refuse_join(f, j, REPLY_QUEUE_FULL,
				    "a token of the service has no room for this subscription "
				    "beside all others",
				    -1);
	}
}

size_t subscriptions_make_list(struct subscriptions *f, size_t budget, struct buf *list)
{
	mark_batch(f);
	size_t n = topics_make_list(&f->topics, f->batch, budget, list);
	/* One without any string has shown that there is no room. */
	f->room_tried = n && (f->room || f->room_tried);
	f->room = false;
	refuse_left_out(f);
	return n;
}

void subscriptions_list_failed(struct subscriptions *f)
{
	f->room |= f->room_tried;
	f->room_tried = false;
	topics_reject_list(&f->topics);
	complete_joins(f, f->ops->mono_ms());
}

bool subscriptions_list_refused(struct subscriptions *f, const char *why)
{
	subscriptions_list_failed(f);
	if (!f->in_batch)
		return false;
	f->batch_limit = f->in_batch > 1 ? f->in_batch / 2 : 1;
	if (f->in_batch == 1 && f->last_tried) {
		f->last_tried->peer->subscriptions.suspect = true;
		refuse_join(f, f->last_tried, REPLY_UPSTREAM_DOWN, why, -1);
	}
	return f->n_joins > 0;
}

void subscriptions_refuse_all(struct subscriptions *f, const char *why, long retry_ms)
{
	struct join *j;

	walk_begin(f);
	while ((j = walk_next(f))) {
		if (!is_complete(f, j))
			refuse_join(f, j, REPLY_UPSTREAM_DOWN, why, retry_ms);
	}
}

/* ---- the connection ---- */

static void send_line(struct subscriptions *f, const struct topic *t_or_all)
{
	if (t_or_all)
		fanout_topic(f->fanout, t_or_all, buf_span(&f->line));
	else
		fanout_all(f->fanout, buf_span(&f->line));
	buf_take(&f->line, buf_len(&f->line));
}

/* After a gap a client may know, by reading it anew, any value of the key. */
static void forget_told(const struct topic *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		t->receivers[i].sub->told = 0;
		t->receivers[i].sub->told_at = t->changes;
	}
}

/* What happened to these since is not known, and can't be found out here. When that was is said by
 * the wall clock as it is now: should it have been put right meanwhile, it is the better one. */
static void tell_gap(struct subscriptions *f, const struct topic *t, int64_t ago_ms)
{
	int64_t until = f->ops->wall_ms(), since = until - ago_ms;

	f->stats->gaps++;
	if (t->kind == TOPIC_PATTERN)
		events_pattern_gap(&f->line, topic_text(t), since, until);
	else
		events_key_gap(&f->line, topic_text(t));
	forget_told(t);
	send_line(f, t);
}

/* The token has no room for it any more, or has again. */
static void coverage_turned(void *owner, struct topic *t)
{
	struct subscriptions *f = owner;
	int64_t now = f->ops->boot_ms();

	if (!topic_is_covered(t)) {
		t->left_at = now;
		tell_gap(f, t, 0);
	} else if (t->kind == TOPIC_KEY) {
		resync_resync(f->resync, t);
	} else {
		tell_gap(f, t, t->left_at ? now - t->left_at : 0);
	}
}

static void tell_connected(struct subscriptions *f)
{
	int64_t ago_ms = f->ops->boot_ms() - f->lost_at;
	struct topic_walk w = {0};
	struct topic *t;

	f->lost_at = 0;
	events_connection(&f->line, "connected", f->ops->wall_ms());
	send_line(f, NULL);
	while ((t = topics_walk(&f->topics, &w))) {
		if (t->n && t->kind == TOPIC_PATTERN)
			tell_gap(f, t, ago_ms);
		else if (t->n && topic_is_covered(t))
			resync_resync(f->resync, t);
	}
}

void subscriptions_live(struct subscriptions *f)
{
	int64_t now = f->ops->mono_ms();

	topics_accept_list(&f->topics, coverage_turned, f);
	f->room_tried = false;
	f->live = true;
	if (f->batch_limit > f->n_joins)
		f->batch_limit = SIZE_MAX;
	else
		f->batch_limit *= 2;
	if (f->lost_at)
		tell_connected(f);
	complete_joins(f, now);
	if (router_is_stopping(f->router))
		return;
	resync_start(f->resync, now);
	if (subscriptions_is_stale(f))
		f->ops->wanted(f->owner);
}

void subscriptions_lost(struct subscriptions *f, int64_t heard_ms)
{
	if (!f->live)
		return;
	f->live = false;
	f->lost_at = heard_ms;
	resync_pause(f->resync); /* what was held back came before it */
	events_connection(&f->line, "disconnected", f->ops->wall_ms());
	send_line(f, NULL);
}

void subscriptions_unreadable(struct subscriptions *f)
{
	resync_doubt(f->resync);
}

void subscriptions_missed(struct subscriptions *f, int64_t since_ms)
{
	struct topic_walk w = {0};
	struct topic *t;

	if (f->lost_at && since_ms < f->lost_at)
		f->lost_at = since_ms;
	if (!f->live || router_is_stopping(f->router))
		return;
	while ((t = topics_walk(&f->topics, &w))) {
		if (t->n)
			tell_gap(f, t, f->ops->boot_ms() - since_ms);
	}
}

struct straggler {
	struct subscriptions *subscriptions;
	int64_t ago_ms;
};

static void tell_straggler(void *owner, struct topic *t)
{
	const struct straggler *s = owner;

	tell_gap(s->subscriptions, t, s->ago_ms);
}

void subscriptions_straggler(struct subscriptions *f, const struct wire_frame *frame,
			     const struct notification *change)
{
	struct span key = json_string_text(&frame->key, &f->name);
	struct topic *t = topics_find_topic(&f->topics, TOPIC_KEY, key, change->key_hash);
	int64_t ago_ms = f->ops->wall_ms() - change->timestamp;
	struct straggler s = {f, 0 <= ago_ms && ago_ms < STRAGGLER_MS ? ago_ms : STRAGGLER_MS};

	topics_match_patterns(&f->topics, key, tell_straggler, &s);
	if (!t || !t->n)
		return;
	tell_straggler(&s, t);
	resync_resync(f->resync, t);
	resync_pump(f->resync, f->ops->mono_ms());
}

void subscriptions_without(struct subscriptions *f)
{
	f->live = false;
	if (!f->topics.n)
		f->lost_at = 0;  /* those who were told of it have gone */
	resync_pause(f->resync); /* what was held back came before it */
	/* Some may have subscribed meanwhile, to what the former token covered. */
	topics_forget_lists(&f->topics, f->lost_at ? NULL : coverage_turned, f);
	if (subscriptions_is_stale(f))
		f->ops->wanted(f->owner);
}

void subscriptions_stop(struct subscriptions *f)
{
	resync_pause(f->resync);
}

void subscriptions_end(struct subscriptions *f)
{
	f->live = false; /* the end of the connection to the service is no news any more */
	events_shutting_down(&f->line, f->ops->wall_ms());
	send_line(f, NULL);
}

/* ---- readings ---- */

void subscriptions_read_sent(struct subscriptions *f, void *reading)
{
	resync_sent(f->resync, reading);
}

void subscriptions_read_end(struct subscriptions *f, void *reading, enum router_read_end end,
			    const struct wire_frame *answer, int64_t now)
{
	resync_end(f->resync, reading, end, answer, now);
}

struct subscriptions_counts subscriptions_counts(const struct subscriptions *f)
{
	return (struct subscriptions_counts){
		.keys = f->topics.live[TOPIC_KEY],
		.patterns = f->topics.live[TOPIC_PATTERN],
		.subscriptions = f->topics.n,
		.waiting = f->n_joins,
		.left_out = f->live ? f->topics.left_out : 0,
		.rereading = resync_waiting(f->resync),
		.bytes = f->topics.bytes,
		.live = f->live,
	};
}
