#include "requests/router.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "requests/answers.h"
#include "requests/budget.h"
#include "requests/unsettled.h"
#include "requests/inflight.h"
#include "requests/key_order.h"
#include "base/log.h"
#include "base/mem.h"
#include "requests/rate_limiter.h"
#include "requests/sched.h"

enum {
	TRIAL_WAIT_MS = 1000, /* a trial waits so long until nothing else waits or is in flight */
	TRIAL_DRAIN_MS = 250, /* ... then so long, while nothing else is sent */
	LONE_MS = 10000,      /* for which places are kept for lone requests */
	OUTPUT_START =
		4096,    /* bytes: largest first size of an output buffer, for a batch of answers */
	ROOM_SHARE = 16, /* a client may take this part of the free room */
	CODE_OK = 200,
	CODE_RATE_LIMITED = 429, /* the only answer that is not passed on */
};

static const char superseded_text[] =
	"refused by the service's rate limit, and a later request for its "
	"key was executed, or may have been";

struct router {
	struct router_settings settings;
	const struct router_ops *ops;
	void *owner;
	struct stats *stats;
	uint64_t hash_seed;
	const struct router_watch *watch; /* of what is watched already, if not watching */
	void *watcher;
	bool watching;
	struct answers answers;
	struct sched sched;
	struct inflight inflight;
	struct combine combine;
	struct rate_limiter rate_limiter;
	uint64_t spent; /* sequence of the last router_spend() */
	struct heap deadlines;
	int64_t wake; /* the time last passed to wake_at(); -1: none */
	bool up, stopping;
	bool held;           /* between router_hold() and router_release() */
	uint32_t connection; /* the main one, while up */
	struct unsettled unsettled;
	struct pending_list deferred;
	struct peer early, late;
	struct peer
		doubted; /* the daemon's own reads: in a hurry; not in a hurry; suspect (blame.h) */
	struct blame blame;
	int64_t connection_since; /* when it became the main one */
	int64_t trial_since;      /* the first request on trial waits since then */
	uint64_t alone;           /* wire_id of a request on trial in flight; 0: there is none */
	int64_t alone_until;      /* nothing else is sent until then */
	int64_t lone_until;       /* places are kept for lone requests until then */
};

struct router *router_new(const struct router_settings *settings, const struct router_ops *ops,
			  void *owner, struct stats *stats, uint64_t hash_seed)
{
	struct router *r = mem_zalloc(sizeof(*r));

	r->settings = *settings;
	r->ops = ops;
	r->owner = owner;
	r->stats = stats;
	r->hash_seed = hash_seed;
	r->wake = -1;
	r->combine.kinds = settings->combine;
	answers_init(&r->answers, ops->deferred_turn, owner);
	sched_init(&r->sched);
	inflight_init(&r->inflight, settings->max_in_flight);
	rate_limiter_init(&r->rate_limiter, settings->rate_limit, 0);
	TAILQ_INIT(&r->deferred);
	router_join(r, &r->early);
	router_join(r, &r->late);
	router_join(r, &r->doubted);
	sched_set_last(&r->sched, &r->late);
	sched_set_trial(&r->sched, &r->doubted, true);
	return r;
}

/* ---- a pending comes and goes ---- */

static struct pending *of_deadline(struct heap_node *node)
{
	return (struct pending *)(void *)((char *)node - offsetof(struct pending, deadline));
}

static void wake_at(struct router *r, int64_t at)
{
	if (r->wake >= 0 && r->wake <= at)
		return;
	r->wake = at;
	r->ops->wake_at(r->owner, at);
}

static void watch_deadline(struct router *r, struct pending *p, int64_t at)
{
	heap_add(&r->deadlines, &p->deadline, at);
	wake_at(r, at);
}

/* It begins to wait, or was sent. */
static void phase_begin(struct pending *p, int64_t now)
{
	p->since = (uint32_t)now;
}

/* The length of the phase that ends. The next one begins. */
static int64_t phase_end(struct pending *p, int64_t now)
{
	int64_t ms = (int32_t)((uint32_t)now - p->since);

	phase_begin(p, now);
	return ms;
}

/* A companion's memory counts as waiting until it is not in flight any more. As an heir, which has
 * a slot, it may outlive its client, and counts no more then. */
static void discharge(struct router *r, struct pending *p)
{
	if (!p->charged)
		return;
	p->charged = false;
	sched_discharge(&r->sched, p);
}

/* It is not in flight any more: frees its key, and its slot unless a companion needs that. */
static void end_flight(struct router *r, struct pending *p, enum inflight_end end)
{
	struct pending *heir = combine_leave(p);

	if (heir)
		inflight_pass(&r->inflight, p, heir);
	discharge(r, p);
	inflight_remove(&r->inflight, p, end);
	budget_end(p);
	if (p->inflight.wire_id == r->alone)
		r->alone = 0;
	if (p->inflight.connection != r->connection &&
	    !inflight_on(&r->inflight, p->inflight.connection))
		r->ops->connection_idle(r->owner, p->inflight.connection);
	if (p->peer)
		sched_unblock(&r->sched, p->peer);
}

/* Takes p out of the queue or table of its state. */
static void pending_leave_state(struct router *r, struct pending *p, enum inflight_end end)
{
	if (p->watched) {
		p->watched = false;
		r->watch->over(r->watcher, p);
	}
	heap_remove(&r->deadlines, &p->deadline);
	switch (p->state) {
	case PENDING_WAITING:
		combine_drop(&r->combine, p);
		sched_remove(&r->sched, p);
		sched_unblock(&r->sched, p->peer); /* others may have waited for it */
		break;
	case PENDING_SENT:
		end_flight(r, p, end);
		break;
	case PENDING_DEFERRED:
		TAILQ_REMOVE(&r->deferred, p, deferral);
		break;
	case PENDING_NEW:
	case PENDING_ANSWERED:
	case PENDING_STATE_N:
		break;
	}
	p->state = PENDING_NEW;
}

/* ---- answers ---- */

static void answer_done(struct router *r, struct pending *p, enum request_outcome outcome)
{
	struct peer *peer = p->peer;

	stats_ended(r->stats, p->op, outcome);
	answers_done(&r->answers, p);
	r->ops->changed(r->owner, peer);
}

/* The client has left: there is no answer. */
static void abandon(struct router *r, struct pending *p)
{
	stats_ended(r->stats, p->op, OUTCOME_ABANDONED);
	answers_drop(&r->answers, p);
}

/* Ends a read of the daemon's own. */
static void end_read(struct router *r, struct pending *p, enum router_read_end end,
		     const struct wire_frame *answer)
{
	void *reading = p->reading;

	pending_leave_state(r, p, INFLIGHT_SILENT); /* it has no key_hash */
	answers_forget(&r->answers, p);
	r->ops->read_end(r->owner, reading, end, answer);
}

static void answer_error(struct router *r, struct pending *p, enum reply_error error,
			 const char *text, long retry_ms);

/* rate_limiter::at is recent enough while requests wait for the rate. */
static long retry_paced_ms(const struct router *r, const struct peer *peer)
{
	return (long)router_pace_wait_ms(r, peer, r->rate_limiter.at);
}

/* A later request for its key is in flight: it would come too late if that takes effect. */
static bool is_overtaken(const struct router *r, const struct pending *p)
{
	const struct pending *last =
		p->key_hash ? inflight_last_of_key(&r->inflight, p->key_hash) : NULL;

	return last && pending_is_before(p, last);
}

/* It is not sent, or not again: the rate limit refused it and a later one was executed
 * (superseded), or the daemon ends. It may still have been executed on a lost connection before. */
static void answer_refused(struct router *r, struct pending *p, bool superseded)
{
	if (p->sent_before)
		answer_error(r, p, REPLY_OUTCOME_UNKNOWN, NULL, -1);
	else if (superseded)
		answer_error(r, p, REPLY_RATE_LIMITED, superseded_text, retry_paced_ms(r, p->peer));
	else
		answer_error(r, p, REPLY_SHUTTING_DOWN, NULL, ROUTER_RESTART_MS);
}

/* Refuses the requests that are too late now. Each answer may cause other requests to be sent, so
 * the queue is searched anew each time. */
static void supersede(struct router *r, const struct key_order_effect *e)
{
	struct pending *p;

	while ((p = key_order_find_superseded(e)))
		answer_refused(r, p, true);
}

static void answer_error(struct router *r, struct pending *p, enum reply_error error,
			 const char *text, long retry_ms)
{
	if (p->reading) {
		end_read(r, p, p->state == PENDING_SENT ? ROUTER_READ_FAILED : ROUTER_READ_LATE,
			 NULL);
		return;
	}
	if (p->state == PENDING_DEFERRED) {
		const char *why = r->ops->deferred_end(r->owner, p);
		text = text ? text : why;
	}
	struct key_order_effect effect = key_order_effect_of(p, INFLIGHT_SILENT);
	pending_leave_state(r, p, INFLIGHT_SILENT);
	if (!p->peer) {
		abandon(r, p);
		return;
	}
	reply_error(answers_begin(p), error, pending_id(p), text, retry_ms);
	answer_done(r, p, outcome_of(error));
	if (effect.peer)
		supersede(r, &effect);
}

void router_say(struct router *r, struct peer *peer, struct span line, bool with_id)
{
	answers_say(&r->answers, peer, line, with_id);
	r->ops->changed(r->owner, peer);
}

/* ---- deferred requests ---- */

static int64_t timeout_of(const struct router *r, const struct request *request)
{
	return request->timeout_ms ? (int64_t)request->timeout_ms : r->settings.request_timeout_ms;
}

static void watch_request(struct router *r, struct pending *p, const struct request *request,
			  int64_t now)
{
	watch_deadline(r, p, now + timeout_of(r, request));
}

static void keep_id(struct pending *p, struct span id)
{
	p->id_len = (uint32_t)id.n;
	if (id.n)
		memcpy(p->text, id.p, id.n);
}

struct pending *router_defer(struct router *r, struct peer *peer, const struct request *request,
			     int64_t now)
{
	struct pending *p = answers_new(&r->answers, peer, request->id.n, request->id.n > 0);

	p->op = request->op;
	p->state = PENDING_DEFERRED;
	p->deferred.timeout_error = REPLY_UPSTREAM_DOWN;
	keep_id(p, request->id);
	TAILQ_INSERT_TAIL(&r->deferred, p, deferral);
	watch_request(r, p, request, now);
	return p;
}

bool router_may_settle(const struct router *r, const struct pending *p)
{
	(void)r;
	return answers_is_next(p);
}

void router_settle(struct router *r, struct pending *p)
{
	pending_leave_state(r, p, INFLIGHT_ANSWERED);
	reply_ok(answers_begin(p), pending_id(p));
	answer_done(r, p, OUTCOME_OK);
}

void router_settle_secret(struct router *r, struct pending *p, struct span object)
{
	pending_leave_state(r, p, INFLIGHT_ANSWERED);
	answers_put_secret(p, object);
	answer_done(r, p, OUTCOME_OK);
}

void router_refuse(struct router *r, struct pending *p, enum reply_error error, const char *text,
		   long retry_ms)
{
	answer_error(r, p, error, text, retry_ms);
}

/* ---- sending ---- */

/* Nothing else of the peer that asks is unanswered. So that a client which asks one thing at a time
 * does not wait for places that others fill, some are kept for a while after such a request found
 * none. Those that such requests have are some of them: many such clients leave places to others.
 */
static bool is_lone(const struct peer *peer)
{
	return peer->answers.unanswered == 1 && !peer->sched.last;
}

static bool is_full(const struct router *r, bool lone, int64_t now)
{
	return inflight_full(&r->inflight, lone || now >= r->lone_until);
}

/* Is the time of a request up? It must not be sent any more. router_expire() is due, which answers
 * it first. */
static bool is_expiring(const struct router *r, int64_t now)
{
	const struct heap_node *first = heap_first(&r->deadlines);

	return first && first->at <= now;
}

static bool can_send(struct router *r, bool lone, int64_t now)
{
	if (!r->up || r->stopping || r->held || is_expiring(r, now) || !r->ops->sendable(r->owner))
		return false;
	if (is_full(r, lone, now)) {
		if (!inflight_full(&r->inflight, true))
			wake_at(r, r->lone_until); /* its place is kept for others until then */
		return false;
	}
	if (r->alone && now < r->alone_until) {
		wake_at(r, r->alone_until);
		return false;
	}
	if (rate_limiter_allows(&r->rate_limiter, now))
		return true;
	wake_at(r, rate_limiter_next(&r->rate_limiter));
	return false;
}

/* A lone request need not wait for those that have turns if the first of them lacks a place that is
 * not kept. */
static bool goes_first(const struct router *r, bool lone, bool full)
{
	const struct pending *p = sched_first(&r->sched);

	return !p || (lone && full && !is_lone(p->peer));
}

static bool must_wait(const struct router *r, const struct pending *p)
{
	return key_order_must_wait(p, &r->inflight, &r->unsettled, r->connection,
				   rate_limiter_is_lowered(&r->rate_limiter));
}

/* p is of a client on trial: for a while nothing else is sent. */
static void begin_trial(struct router *r, struct pending *p, int64_t now)
{
	r->alone = p->inflight.wire_id;
	r->alone_until = now + blame_alone_ms(p->peer);
	r->trial_since = now;
}

static bool may_go_along(void *owner, const struct pending *p)
{
	return !must_wait(owner, p);
}

static void go_along(struct router *r, struct pending *p, const struct pending *leader, int64_t now)
{
	if (r->watching && request_op_is_read(p->op))
		r->watch->sent(r->watcher, p);
	combine_unindex(&r->combine, p);
	sched_remove(&r->sched, p);
	sched_charge(&r->sched, p);
	p->charged = true;
	p->in = NULL; /* only its leader is in flight */
	histogram_add(&r->stats->request_wait, phase_end(p, now));
	p->state = PENDING_SENT;
	p->tried = false;
	inflight_add_companion(&r->inflight, p, leader);
	r->stats->combined++;
	r->stats->requests_saved++;
}

/* Those that wait for the same go along. Increments: *body becomes that of their sum. */
static void take_along(struct router *r, struct pending *p, struct pending **companions, size_t n,
		       struct buf *body, int64_t now)
{
	if (n && combine_join(p, companions, n, body)) {
		for (size_t i = 0; i < n; i++)
			go_along(r, companions[i], p, now);
	}
	free(companions);
}

static bool is_longer_than_max(const struct router *r, size_t length)
{
	return r->settings.max_frame && length > r->settings.max_frame;
}

static bool is_too_long(struct router *r, size_t length, int64_t now)
{
	return is_longer_than_max(r, length) || blame_is_too_long(&r->blame, length, now);
}

/* p is in no queue. */
static void send_now(struct router *r, struct pending *p, int64_t now)
{
	char head[WIRE_HEAD_MAX];
	struct buf sum = {0};
	size_t n_companions = 0;
	struct pending **companions = NULL;

	if (combine_has_any(&r->combine) &&
	    !is_too_long(r, wire_length(p->body_len + COMBINE_GROWTH), now))
		companions = combine_find(&r->combine, p, may_go_along, r, now, &n_companions);

	if (r->watching && request_op_is_read(p->op))
		r->watch->sent(r->watcher, p);
	histogram_add(&r->stats->request_wait, phase_end(p, now));
	p->state = PENDING_SENT;
	inflight_add(&r->inflight, p, r->connection);
	if (is_lone(p->peer))
		inflight_set_lone(&r->inflight, p);
	if (companions)
		take_along(r, p, companions, n_companions, &sum, now);
	struct span body = buf_len(&sum) ? buf_span(&sum) : pending_body(p);
	p->tried = p->peer->sched.on_trial;
	if (p->tried)
		begin_trial(r, p, now);
	rate_limiter_spend(&r->rate_limiter, now);
	budget_begin(p, now);
	size_t n = wire_head(head, p->inflight.wire_id);
	r->ops->send(r->owner, (struct span){head, n}, body);
	r->stats->requests_sent++;
	r->stats->upstream_bytes_out += n + body.n;
	buf_release(&sum);
	if (p->reading)
		r->ops->read_sent(r->owner, p->reading);
}

bool router_takes_key(struct router *r, const struct json_value *key, int64_t now)
{
	struct request request = {.op = OP_GET, .key = *key};
	size_t length = wire_length(wire_body_max(&request));

	return !is_too_long(r, length, now);
}

/* Refuses a request that is longer than the service takes. True: it was refused. */
static bool refuse_long(struct router *r, struct pending *p, int64_t now)
{
	size_t length = wire_length(p->body_len);
	char text[120];

	if (is_longer_than_max(r, length))
		snprintf(text, sizeof(text),
			 "the request has %zu bytes as it would be sent, and max_frame is %zu",
			 length, r->settings.max_frame);
	else if (blame_is_too_long(&r->blame, length, now))
		snprintf(text, sizeof(text),
			 "the service has closed the connection over a message of %zu bytes, and "
			 "this one has %zu",
			 r->blame.refused, length);
	else
		return false;
	r->stats->requests_too_long++;
	if (p->reading)
		end_read(r, p, ROUTER_READ_TOO_LONG, NULL);
	else
		answer_error(r, p, p->sent_before ? REPLY_OUTCOME_UNKNOWN : REPLY_TOO_LARGE, text,
			     -1);
	return true;
}

/* May the first request on trial be sent? It may when nothing else waits or is in flight. If that
 * takes too long, nothing else is sent meanwhile: *drains. */
static bool trial_has_turn(struct router *r, bool others_wait, bool *drains, int64_t now)
{
	bool quiet = !inflight_on(&r->inflight, r->connection);
	int64_t due = r->trial_since + TRIAL_WAIT_MS;

	if (due < r->blame.next_trial)
		due = r->blame.next_trial;
	if (now < r->blame.next_trial || (now < due && (others_wait || !quiet))) {
		wake_at(r, now < r->blame.next_trial ? r->blame.next_trial : due);
		return false;
	}
	if (quiet || now >= due + TRIAL_DRAIN_MS)
		return true;
	*drains = true;
	wake_at(r, due + TRIAL_DRAIN_MS);
	return false;
}

/* NULL: nothing may be sent, even if can_send(). */
static struct pending *next_to_send(struct router *r, int64_t now)
{
	struct pending *p = sched_first(&r->sched), *trial = sched_first_trial(&r->sched);
	bool drains = false;

	if (!trial || !r->up)
		return p;
	if (trial_has_turn(r, p != NULL, &drains, now))
		return trial;
	return drains ? NULL : p;
}

/* It may be known by now what it asks for. */
static bool serve_from_memory(struct router *r, struct pending *p)
{
	enum request_outcome outcome;

	if (!r->watching || p->op != OP_GET || p->fresh || p->reading || r->stopping ||
	    !r->watch->serve(r->watcher, p, answers_begin(p), &outcome))
		return false;
	pending_leave_state(r, p, INFLIGHT_BACK);
	answer_done(r, p, outcome);
	return true;
}

/* Gives turns to as many peers as their budgets have room for; false: to none. */
static bool resume_short_peers(struct router *r, int64_t now)
{
	struct budget *next;
	struct peer *peer;
	bool any = false;

	for (struct budget *b = TAILQ_FIRST(&r->sched.budgets); b; b = next) {
		unsigned room = budget_room(b, now);
		next = TAILQ_NEXT(b, of_sched);
		budget_ref(b);
		for (; room && (peer = TAILQ_FIRST(&b->waiting)); room--, any = true)
			sched_set_short(&r->sched, peer, NULL);
		budget_unref(b);
	}
	return any;
}

static inline bool resume_peers(struct router *r, int64_t now)
{
	return !TAILQ_EMPTY(&r->sched.budgets) && resume_short_peers(r, now);
}

/* A budget with room needs no call: its peers have turns, as far as that goes. */
static void wake_for_budgets(struct router *r, int64_t now)
{
	struct budget *b;

	TAILQ_FOREACH (b, &r->sched.budgets, of_sched) {
		int64_t next = budget_next(b);
		if (next > now && !TAILQ_EMPTY(&b->waiting))
			wake_at(r, next);
	}
}

/* Does its client have no room for it in a budget? Then it gets no turn. */
static bool exceeds_budget(struct router *r, struct pending *p, int64_t now)
{
	struct budget *b = budget_lacking(p->peer, false, p->paid, now);

	if (b)
		sched_set_short(&r->sched, p->peer, b);
	return b != NULL;
}

static struct pending *next_with_budget(struct router *r, int64_t now)
{
	struct pending *p = next_to_send(r, now);

	return p || !resume_peers(r, now) ? p : next_to_send(r, now);
}

void router_pump(struct router *r, int64_t now)
{
	struct pending *p;

	if (r->held)
		return;
	resume_peers(r, now);
	while ((p = next_with_budget(r, now))) {
		if (serve_from_memory(r, p))
			continue;
		struct peer *peer = p->peer;
		if (!can_send(r, is_lone(peer), now))
			break;
		if (must_wait(r, p)) {
			sched_block(&r->sched, peer);
			continue;
		}
		if (exceeds_budget(r, p, now))
			continue;
		if (refuse_long(r, p, now))
			continue;
		combine_drop(&r->combine, p);
		sched_take_this(&r->sched, p);
		send_now(r, p, now);
		if (peer->number)
			r->ops->changed(r->owner, peer);
	}
	if (r->up && !r->stopping)
		wake_for_budgets(r, now);
}

/* Moves the client to the queue that its record asks for. */
static void set_trial(struct router *r, struct peer *peer, int64_t now)
{
	if (!sched_first_trial(&r->sched))
		r->trial_since = now;
	sched_set_trial(&r->sched, peer, peer->blame.trial > 0);
}

static void enqueue(struct router *r, struct pending *p, int64_t now)
{
	if (p->peer->sched.on_trial && !sched_first_trial(&r->sched))
		r->trial_since = now;
	p->state = PENDING_WAITING;
	sched_add(&r->sched, p);
	combine_add(&r->combine, p);
}

/* A pending with the frame's body. */
static struct pending *remote_new(struct router *r, struct peer *peer,
				  const struct request *request, bool with_id)
{
	struct pending *p =
		answers_new(&r->answers, peer, request->id.n + wire_body_max(request), with_id);

	p->op = request->op;
	keep_id(p, request->id);
	p->body_len = (uint32_t)wire_body(request, p->text + p->id_len);
	return p;
}

/* Refuses a request that the rate would not let go before its deadline, and says when a similar one
 * would go in time. Only while there is a connection: the next one may have another rate. */
static bool refuse_early(struct router *r, struct pending *p, int64_t timeout_ms, int64_t now)
{
	if (!r->up || r->rate_limiter.rate == 0 || combine_has_other(&r->combine, p))
		return false;
	int64_t late_ms = router_pace_wait_ms(r, p->peer, now) - timeout_ms;
	if (late_ms <= 1)
		return false;
	int64_t one_ms = rate_limiter_wait_ms(&r->rate_limiter, r->rate_limiter.at, 1);
	r->stats->requests_refused_early++;
	answer_error(r, p, REPLY_RATE_LIMITED,
		     "the rate limit would not let it be sent within its time",
		     (long)(late_ms > one_ms ? late_ms : one_ms));
	return true;
}

static void refuse_over_budget(struct router *r, struct pending *p, struct budget *b, long retry_ms)
{
	char text[200];

	b->refused[BUDGET_RATE_LIMITED]++;
	snprintf(text, sizeof(text),
		 "its turn would come after its time is up: all clients of [access %s] together "
		 "have %u requests/s",
		 b->name, b->limits.rate);
	answer_error(r, p, REPLY_RATE_LIMITED, text, retry_ms);
}

/* The same as refuse_early() for the rates of the client's budgets. To go along with another
 * request costs nothing. */
static bool refuse_early_over_budget(struct router *r, struct pending *p, int64_t timeout_ms,
				     int64_t now)
{
	struct budget *slowest;
	int64_t late_ms = budget_peer_wait_ms(p->peer, now, &slowest) - timeout_ms;

	if (!r->up || !slowest || late_ms <= 1 || combine_has_other(&r->combine, p))
		return false;
	int64_t one_ms = budget_wait_ms(slowest, 1, now);
	r->stats->requests_refused_early++;
	refuse_over_budget(r, p, slowest, (long)(late_ms > one_ms ? late_ms : one_ms));
	return true;
}

void router_request(struct router *r, struct peer *peer, const struct request *request, int64_t now)
{
	struct pending *p = remote_new(r, peer, request, request->id.n > 0);

	p->key_hash = key_order_hash(peer, request, r->hash_seed);
	phase_begin(p, now);
	p->fresh = request->fresh;
	if (r->watching)
		r->watch->taken(r->watcher, p);
	if (r->stopping) {
		answer_error(r, p, REPLY_SHUTTING_DOWN, NULL, ROUTER_RESTART_MS);
		return;
	}
	if (refuse_long(r, p, now))
		return;
	if (r->sched.bytes + p->answers.size > r->settings.max_waiting_bytes) {
		r->stats->requests_queue_full++;
		answer_error(r, p, REPLY_QUEUE_FULL, NULL, -1);
		return;
	}
	/* Sent at once, if nothing of this client is before it, and no peer waits for a turn or
	 * for a place that is kept for it. A request that waits for an earlier one of its key gets
	 * no turn and delays no other. */
	bool first = TAILQ_EMPTY(&peer->sched.waiting), blocked = first && must_wait(r, p);
	bool lone = is_lone(peer), full = is_full(r, false, now);
	if (lone && full)
		r->lone_until = now + LONE_MS;
	if (blame_lapses(peer, now))
		set_trial(r, peer, now);
	bool trials = peer->sched.on_trial || sched_first_trial(&r->sched);
	struct budget *lacking = first ? budget_lacking(peer, true, false, now) : NULL;
	if (first && !blocked && !trials && !lacking && goes_first(r, lone, full) &&
	    can_send(r, lone, now)) {
		watch_request(r, p, request, now);
		send_now(r, p, now);
		return;
	}
	if (refuse_early(r, p, timeout_of(r, request), now) ||
	    refuse_early_over_budget(r, p, timeout_of(r, request), now))
		return;
	watch_request(r, p, request, now);
	enqueue(r, p, now);
	if (blocked)
		sched_block(&r->sched, peer);
	if (lacking)
		sched_set_short(&r->sched, peer, lacking);
	if (trials || lacking)
		router_pump(r, now);
}

static void read_key(struct router *r, struct peer *reader, void *reading,
		     const struct json_value *key, int64_t now)
{
	struct request request = {.op = OP_GET, .key = *key};
	struct pending *p = remote_new(r, reader, &request, true);

	p->reading = reading;
	phase_begin(p, now);
	watch_request(r, p, &request, now);
	enqueue(r, p, now);
	router_pump(r, now);
}

void router_read(struct router *r, void *reading, const struct json_value *key, bool hurry,
		 int64_t now)
{
	read_key(r, hurry ? &r->early : &r->late, reading, key, now);
}

void router_read_alone(struct router *r, void *reading, const struct json_value *key, int64_t now)
{
	read_key(r, &r->doubted, reading, key, now);
}

/* ---- frames of the service ---- */

/* For this answer, and as many as may come with it, if they are of this length. */
static size_t room_for_all(const struct peer *peer, size_t most)
{
	size_t all = most * peer->answers.unanswered;

	return most > OUTPUT_START ? most : all < OUTPUT_START ? all : OUTPUT_START;
}

static void write_answer(struct pending *p, const struct wire_frame *frame)
{
	struct span id = pending_id(p);
	struct buf *out = answers_begin(p);
	size_t most = wire_splice_max(frame, id);
	char *room = buf_room(out, out->memory ? most : room_for_all(p->peer, most));

	buf_grew(out, wire_splice(frame, id, room));
}

static void answer_frame(struct router *r, struct pending *p, const struct wire_frame *frame)
{
	struct wire_frame own;
	struct buf text = {0};

	bool shares = combine_shares_value(p);
	if (shares && !combine_answer(p, frame, &text, &own)) {
		buf_release(&text);
		answer_error(r, p, REPLY_BAD_UPSTREAM, NULL, -1);
		return;
	}
	if (r->watching && request_op_is_read(p->op))
		r->watch->answered(r->watcher, p, frame, p->inflight.connection == r->connection);
	if (p->reading) {
		end_read(r, p,
			 p->inflight.connection == r->connection ? ROUTER_READ_ANSWERED
								 : ROUTER_READ_ELSEWHERE,
			 frame);
		return;
	}
	struct key_order_effect effect = key_order_effect_of(p, INFLIGHT_ANSWERED);
	pending_leave_state(r, p, INFLIGHT_ANSWERED);
	if (!p->peer) {
		buf_release(&text);
		abandon(r, p);
		return;
	}
	write_answer(p, shares ? &own : frame);
	buf_release(&text);
	r->stats->requests_answered++;
	answer_done(r, p, frame->code == CODE_OK ? OUTCOME_OK : OUTCOME_SERVICE_ERROR);
	if (effect.peer)
		supersede(r, &effect);
}

/* ---- access rules that have changed ---- */

/* Why it may not be sent now; NULL: it may. With a brace before it the frame's body is a request as
 * a client may write it. */
static const char *forbidden(struct router *r, struct pending *p)
{
	struct request request;
	struct request_fault fault;
	struct buf text = {0};
	const char *why = "the access rules have changed";

	buf_add(&text, "{", 1);
	buf_add(&text, pending_body(p).p, pending_body(p).n);
	if (request_parse(buf_span(&text), &request, &fault) == 0)
		why = r->ops->forbids(r->owner, p->peer, &request);
	buf_release(&text);
	p->in_doubt = false;
	return why;
}

static void answer_forbidden(struct router *r, struct pending *p, const char *why)
{
	if (p->sent_before)
		answer_error(r, p, REPLY_OUTCOME_UNKNOWN, NULL, -1);
	else
		answer_error(r, p, REPLY_FORBIDDEN, why, -1);
}

/* The service's rate limit refused it, so it was not executed and waits for another turn. If a
 * later request for its key is in flight, it waits until that is refused as well; if that takes
 * effect, this one is too late. */
static void refused(struct router *r, struct pending *p, int64_t now)
{
	if (p->reading) {
		end_read(r, p, ROUTER_READ_UNSENT, NULL);
		return;
	}
	if (!p->peer || p->inflight.followed || r->stopping) {
		bool superseded = p->inflight.followed || is_overtaken(r, p);
		pending_leave_state(r, p, INFLIGHT_BACK);
		answer_refused(r, p, superseded);
		return;
	}
	const char *why = p->in_doubt ? forbidden(r, p) : NULL;
	if (why) {
		pending_leave_state(r, p, INFLIGHT_BACK); /* without effect on earlier ones */
		answer_forbidden(r, p, why);
		return;
	}
	end_flight(r, p, INFLIGHT_BACK);
	p->state = PENDING_WAITING;
	phase_begin(p, now);
	p->refused = true;
	sched_add_again(&r->sched, p);
	combine_add(&r->combine, p);
}

/* limited: it was refused because of the rate limit. */
static void end_with(struct router *r, struct pending *p, const struct wire_frame *frame,
		     bool limited, int64_t now)
{
	if (limited)
		refused(r, p, now);
	else
		answer_frame(r, p, frame);
}

/* p was answered, so all that went as one with it have taken effect, or will not: also those whose
 * time was up before. */
static void settle_shared(struct router *r, const struct pending *p)
{
	if (combine_shares_value(p) && unsettled_over(&r->unsettled, p->inflight.wire_id, 0))
		sched_unblock_all(&r->sched);
}

static void answered(struct router *r, struct pending *p, const struct wire_frame *frame,
		     int64_t now)
{
	size_t n;
	struct pending **companions = combine_disband(p, &n);
	bool limited = frame->code == CODE_RATE_LIMITED;

	histogram_add(&r->stats->request_service, phase_end(p, now));
	if (blame_answered(&r->blame, p))
		set_trial(r, p->peer, now);
	settle_shared(r, p);
	if (limited) {
		r->stats->upstream_refused++;
		rate_limiter_refused(&r->rate_limiter, now, p->inflight.sequence,
				     r->inflight.sequence);
	}
	end_with(r, p, frame, limited, now);
	for (size_t i = 0; i < n; i++)
		end_with(r, companions[i], frame, limited, now);
	free(companions);
}

/* The same of an answer that can't be used. */
static void answered_unusably(struct router *r, struct pending *p)
{
	size_t n;
	struct pending **companions = combine_disband(p, &n);

	settle_shared(r, p);
	answer_error(r, p, REPLY_BAD_UPSTREAM, NULL, -1);
	for (size_t i = 0; i < n; i++)
		answer_error(r, companions[i], REPLY_BAD_UPSTREAM, NULL, -1);
	free(companions);
}

/* An answer, usable or not, to a request that is not in flight. */
static void late(struct router *r, const struct wire_frame *frame, int64_t now)
{
	if (!frame->id || !unsettled_over(&r->unsettled, frame->id, 0))
		return;
	sched_unblock_all(&r->sched);
	router_pump(r, now);
}

void router_frame(struct router *r, const struct wire_frame *frame, int64_t now)
{
	struct pending *p = NULL;

	switch (frame->kind) {
	case WIRE_ANSWER:
		p = inflight_find(&r->inflight, frame->id);
		if (p)
			answered(r, p, frame, now);
		else
			r->stats->upstream_late++;
		break;
	case WIRE_UNUSABLE:
		r->stats->upstream_unusable++;
		if (frame->has_id)
			p = inflight_find(&r->inflight, frame->id);
		if (p)
			answered_unusably(r, p);
		break;
	case WIRE_NOTIFICATION: /* never an answer, whatever it carries */
	case WIRE_KIND_N:
		break;
	}
	if (p)
		router_pump(r, now);
	else if (frame->has_id && frame->kind != WIRE_NOTIFICATION)
		late(r, frame, now);
}

/* ---- new settings ---- */

void router_set(struct router *r, const struct router_settings *settings, int64_t now)
{
	if (settings->rate_limit != r->settings.rate_limit)
		rate_limiter_set(&r->rate_limiter, settings->rate_limit, now, r->inflight.sequence);
	if (settings->max_in_flight != r->settings.max_in_flight)
		inflight_set(&r->inflight, settings->max_in_flight);
	r->settings = *settings;
	r->combine.kinds = settings->combine; /* of those that come */
	router_pump(r, now);
}

/* ---- the connection comes and goes ---- */

void router_up(struct router *r, uint32_t connection, int64_t now)
{
	r->up = true;
	r->connection_since = now;
	r->connection = connection;
	router_pump(r, now);
}

bool router_move(struct router *r, uint32_t connection, int64_t now)
{
	uint32_t former = r->connection;

	r->connection_since = now;
	r->connection = connection;
	if (!inflight_on(&r->inflight, former))
		r->ops->connection_idle(r->owner, former);
	router_pump(r, now);
	return unsettled_is_on(&r->unsettled, former);
}

/* A read is sent again if its client is still there and allowed to, and no later request of that
 * client for the key has overtaken it. */
static bool may_resend(struct router *r, struct pending *p, int64_t now)
{
	return p->peer && request_op_is_read(p->op) && !p->inflight.overtaken && !p->reading &&
	       !r->stopping && blame_may_repeat(p) &&
	       !blame_is_too_long(&r->blame, wire_length(p->body_len), now) &&
	       !(p->in_doubt && forbidden(r, p));
}

/* The requests in flight on the connection, in the order of sending. */
static struct pending **sent_on(const struct router *r, uint32_t connection, size_t *n)
{
	size_t all;
	struct pending **sent = inflight_in_order(&r->inflight, &all);

	*n = 0;
	for (size_t i = 0; i < all; i++) {
		if (sent[i]->inflight.connection == connection)
			sent[(*n)++] = sent[i];
	}
	return sent;
}

/* The same with companions, who are none any more. Takes the array. */
static struct pending **with_companions(struct pending **sent, size_t *n)
{
	struct pending **all = NULL;
	size_t n_all = 0;

	for (size_t i = 0; i < *n; i++) {
		size_t more;
		struct pending **companions = combine_disband(sent[i], &more);
		all = mem_resize(all, (n_all + more + 1) * sizeof(struct pending *));
		all[n_all++] = sent[i];
		for (size_t k = 0; k < more; k++) {
			companions[k]->blame = sent[i]->blame;
			all[n_all++] = companions[k];
		}
		free(companions);
	}
	free(sent);
	*n = n_all;
	return all;
}

static void wait_again(struct router *r, struct pending *p, int64_t now)
{
	end_flight(r, p, INFLIGHT_BACK);
	p->state = PENDING_WAITING;
	phase_begin(p, now);
	p->sent_before = true;
	sched_add_again(&r->sched, p);
	combine_add(&r->combine, p);
	r->stats->requests_resent++;
}

static void lost(struct router *r, struct pending *p)
{
	if (p->reading) {
		end_read(r, p,
			 p->blame.losses >= BLAME_LOSS ? ROUTER_READ_BLAMED
			 : p->blame.losses             ? ROUTER_READ_DOUBTED
						       : ROUTER_READ_UNSENT,
			 NULL);
		return;
	}
	r->stats->requests_outcome_unknown++;
	answer_error(r, p, REPLY_OUTCOME_UNKNOWN, NULL, -1);
}

/* Puts the suspects of a lost connection on trial. True: the culprit is known. */
static bool judge(struct router *r, struct pending *const *sent, size_t n,
		  const struct blame_end *end, int64_t now)
{
	enum blame_verdict verdict = blame_judge(&r->blame, sent, n, end, now);

	r->stats->upstream_blamed += verdict != BLAME_NOBODY;
	for (size_t i = 0; verdict != BLAME_NOBODY && i < n; i++) {
		if (sent[i]->peer && !sent[i]->reading)
			set_trial(r, sent[i]->peer, now);
	}
	return verdict == BLAME_ONE;
}

bool router_lost(struct router *r, uint32_t connection, int close_code, bool dropped, int64_t now)
{
	struct blame_end end = {
		.close_code = close_code,
		.dropped = dropped,
		.lasted_ms =
			connection == r->connection ? now - r->connection_since : BLAME_YOUNG_MS,
	};
	size_t n;
	struct pending **sent = sent_on(r, connection, &n);

	bool known = judge(r, sent, n, &end, now);
	sent = with_companions(sent, &n);
	if (connection == r->connection)
		r->up = false;
	for (size_t i = 0; i < n; i++) {
		if (may_resend(r, sent[i], now)) {
			wait_again(r, sent[i], now);
			sent[i] = NULL;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (sent[i])
			lost(r, sent[i]);
	}
	free(sent);
	if (unsettled_over(&r->unsettled, 0, connection))
		sched_unblock_all(&r->sched);
	router_pump(r, now);
	return known;
}

void router_down(struct router *r, uint32_t connection, int64_t now)
{
	router_lost(r, connection, 0, false, now);
}

void router_forget_blame(struct router *r)
{
	blame_forget(&r->blame);
}

/* ---- time ---- */

/* The same of one whose client is short of this budget. */
static void answer_over_budget(struct router *r, struct pending *p, struct budget *b, int64_t now)
{
	char text[200];

	/* A place may be free since just now. */
	if (!b->limits.max_in_flight || budget_next(b) > now) {
		refuse_over_budget(r, p, b, (long)budget_wait_ms(b, b->n_waiting + 1, now));
		return;
	}
	b->refused[BUDGET_QUEUE_FULL]++;
	snprintf(text, sizeof(text),
		 "not sent within its time: max_in_flight of [access %s] was reached (%u)", b->name,
		 b->limits.max_in_flight);
	answer_error(r, p, REPLY_QUEUE_FULL, text, -1);
}

/* Answers a request that was not sent before its deadline. full: max_in_flight was reached. */
static void answer_unsent(struct router *r, struct pending *p, bool full, int64_t now)
{
	if (p->sent_before)
		answer_error(r, p, REPLY_OUTCOME_UNKNOWN, NULL, -1);
	else if (!r->up)
		answer_error(r, p, REPLY_UPSTREAM_DOWN, NULL, r->ops->reconnect_ms(r->owner));
	else if (p->peer->sched.short_of)
		answer_over_budget(r, p, p->peer->sched.short_of, now);
	else if (p->peer->sched.on_trial)
		answer_error(r, p, REPLY_QUEUE_FULL,
			     "not sent within its time: connections were lost over requests of "
			     "this client, so they come last",
			     -1);
	else if (!r->ops->sendable(r->owner))
		answer_error(r, p, REPLY_QUEUE_FULL,
			     "not sent within its time: the network takes no more data at present",
			     -1);
	else if (p->refused || (r->rate_limiter.rate > 0 && !full))
		answer_error(r, p, REPLY_RATE_LIMITED, NULL, retry_paced_ms(r, p->peer));
	else if (full)
		answer_error(r, p, REPLY_QUEUE_FULL,
			     "not sent within its time: max_in_flight requests were in flight "
			     "ahead of it",
			     -1);
	else
		answer_error(r, p, REPLY_QUEUE_FULL,
			     "not sent within its time: an earlier request of its client for the "
			     "same key was in flight, or no place was free before",
			     -1);
}

static void expire(struct router *r, struct pending *p, bool full, int64_t now)
{
	if (p->state == PENDING_DEFERRED) {
		*(p->deferred.timeout_error == REPLY_TIMEOUT ? &r->stats->requests_timeout
							     : &r->stats->requests_unsent) += 1;
		answer_error(r, p, (enum reply_error)p->deferred.timeout_error, NULL,
			     p->deferred.timeout_error == REPLY_UPSTREAM_DOWN
				     ? r->ops->reconnect_ms(r->owner)
				     : -1);
		return;
	}
	if (p->state == PENDING_SENT) {
		r->stats->requests_timeout++;
		if (unsettled_give_up(&r->unsettled, p))
			sched_unblock_all(&r->sched);
		answer_error(r, p, REPLY_TIMEOUT, NULL, -1);
		return;
	}
	r->stats->requests_unsent++;
	answer_unsent(r, p, full, now);
}

int64_t router_expire(struct router *r, int64_t now)
{
	struct heap_node *first = heap_first(&r->deadlines);
	/* As it was just before the first of them: places may have been kept until then. */
	bool full = first && is_full(r, false, first->at - 1);

	while ((first = heap_first(&r->deadlines)) && first->at <= now)
		expire(r, of_deadline(first), full, now);
	r->wake = first ? first->at : -1;
	router_pump(r, now); /* slots are free again, or the rate allows more; may call wake_at() */
	return r->wake;
}

/* ---- clients ---- */

void router_join(struct router *r, struct peer *peer)
{
	answers_join(peer);
	sched_join(peer);
	blame_join(&r->blame, peer);
	sched_set_trial(&r->sched, peer, peer->blame.trial > 0);
}

/* A request in flight, but for companions, keeps its slot until it is answered. Its client, which
 * may have asked for ten minutes, has left, so request_timeout is the limit now. */
static void orphan(struct router *r, struct pending *p, int64_t now)
{
	p->uid = p->peer->uid;
	p->peer = NULL;
	if (p->deadline.at > now + r->settings.request_timeout_ms) {
		heap_remove(&r->deadlines, &p->deadline);
		watch_deadline(r, p, now + r->settings.request_timeout_ms);
	}
}

void router_leave(struct router *r, struct peer *peer, int64_t now)
{
	struct pending *p;

	blame_leave(&r->blame, peer, now);
	while ((p = TAILQ_FIRST(&peer->answers.pendings))) {
		discharge(r, p);
		answers_orphan(p);
		if (p->state == PENDING_SENT && !p->inflight.companion) {
			orphan(r, p, now);
			continue;
		}
		if (p->state == PENDING_WAITING)
			r->stats->requests_abandoned++;
		if (p->state == PENDING_DEFERRED)
			r->ops->deferred_end(r->owner, p);
		bool answered = p->state == PENDING_ANSWERED;
		pending_leave_state(r, p, INFLIGHT_SILENT);
		if (answered)
			answers_drop(&r->answers, p);
		else
			abandon(r, p);
	}
}

void router_hold(struct router *r)
{
	r->held = true;
}

/* As nothing is sent or answered from memory meanwhile, an answer takes no other request out of the
 * queue. */
void router_restrict(struct router *r, struct peer *peer)
{
	struct pending *p, *next;

	sched_set_short(&r->sched, peer, NULL); /* its budgets may be others now */
	sched_regroup(&r->sched, peer);
	for (p = TAILQ_FIRST(&peer->sched.waiting); p; p = next) {
		next = TAILQ_NEXT(p, waiting);
		const char *why = forbidden(r, p);
		if (why)
			answer_forbidden(r, p, why);
	}
	TAILQ_FOREACH (p, &peer->answers.pendings, answers.of_peer)
		p->in_doubt = p->state == PENDING_SENT;
}

void router_release(struct router *r, int64_t now)
{
	r->held = false;
	router_pump(r, now);
}

/* Limits a client's waiting requests to a part of the free room, so that greedy clients leave some
 * to newcomers. Each client may have one. */
static bool has_room(const struct router *r, const struct peer *peer)
{
	size_t all = r->settings.max_waiting_bytes, own = r->settings.max_peer_waiting_bytes;
	size_t share = r->sched.bytes < all ? (all - r->sched.bytes) / ROOM_SHARE : 0;

	return !peer->sched.bytes || peer->sched.bytes < (share < own ? share : own);
}

bool router_may_read(const struct router *r, const struct peer *peer)
{
	return peer->answers.unanswered < r->settings.max_pipeline && has_room(r, peer);
}

/* ---- who watches ---- */

static void take_again(struct router *r, struct pending *p)
{
	if (request_op_is_remote(p->op) && !request_op_is_read(p->op))
		r->watch->taken(r->watcher, p);
}

void router_watch(struct router *r, const struct router_watch *watch, void *owner)
{
	r->watching = watch != NULL;
	if (!watch)
		return; /* what is watched already stays so until it is over */
	r->watch = watch;
	r->watcher = owner;
	for (size_t i = 0; i < r->deadlines.n; i++) /* all that is under way */
		take_again(r, of_deadline(r->deadlines.node[i]));
}

/* ---- the end ---- */

static bool is_with_nexus(const struct pending *p)
{
	return request_op_is_nexus(p->op) && p->deferred.timeout_error == REPLY_TIMEOUT;
}

/* NULL: none. A token that is being minted is not executed: its client has not got it. */
static struct pending *first_unexecuted(const struct router *r)
{
	struct pending *p;

	TAILQ_FOREACH (p, &r->deferred, deferral) {
		if (!is_with_nexus(p))
			break;
	}
	return p;
}

void router_stop(struct router *r)
{
	struct pending *p;

	r->stopping = true;
	sched_clear_short(&r->sched);
	while ((p = sched_take(&r->sched))) {
		combine_drop(&r->combine, p);
		p->state = PENDING_NEW; /* sched_take() has removed it */
		answer_refused(r, p, p->refused && is_overtaken(r, p));
	}
	while ((p = first_unexecuted(r)))
		answer_error(r, p, REPLY_SHUTTING_DOWN, reply_error_text(REPLY_SHUTTING_DOWN),
			     ROUTER_RESTART_MS);
}

bool router_is_stopping(const struct router *r)
{
	return r->stopping;
}

void router_abandon(struct router *r)
{
	static const char why[] = "the daemon has stopped before the answer came";
	struct pending *p;
	size_t n;
	struct pending **sent = with_companions(inflight_in_order(&r->inflight, &n), &n);

	for (size_t i = 0; i < n; i++)
		answer_error(r, sent[i], REPLY_OUTCOME_UNKNOWN, why, -1);
	free(sent);
	while (r->stopping && (p = TAILQ_FIRST(&r->deferred)))
		answer_error(r, p, REPLY_OUTCOME_UNKNOWN, why, -1);
}

bool router_is_drained(const struct router *r)
{
	return inflight_count(&r->inflight) == 0 && TAILQ_EMPTY(&r->deferred);
}

/* Each read is ended once, though read_end() may ask for a new one, which is refused. */
static void end_reads(struct router *r, struct peer *reader)
{
	for (uint32_t n = reader->answers.unanswered; n; n--)
		answer_error(r, TAILQ_FIRST(&reader->answers.pendings), REPLY_SHUTTING_DOWN, NULL,
			     ROUTER_RESTART_MS);
}

void router_free(struct router *r)
{
	router_abandon(r);
	end_reads(r, &r->early);
	end_reads(r, &r->late);
	end_reads(r, &r->doubted);
	router_leave(r, &r->early, 0);
	router_leave(r, &r->late, 0);
	router_leave(r, &r->doubted, 0);
	inflight_fini(&r->inflight);
	combine_fini(&r->combine);
	sched_fini(&r->sched);
	heap_fini(&r->deadlines);
	answers_fini(&r->answers);
	free(r);
}

unsigned router_in_flight(const struct router *r)
{
	return inflight_count(&r->inflight);
}

size_t router_waiting(const struct router *r)
{
	return r->sched.n;
}

size_t router_waiting_bytes(const struct router *r)
{
	return r->sched.bytes;
}

double router_pace(const struct router *r, int64_t now)
{
	return rate_limiter_rate(&r->rate_limiter, now);
}

int64_t router_budget_wait_ms(const struct router *r, const struct peer *peer, int64_t now)
{
	struct budget *slowest;

	(void)r;
	return peer ? budget_peer_wait_ms(peer, now, &slowest) : 0;
}

int64_t router_spend(struct router *r, int64_t now)
{
	r->spent = ++r->inflight.sequence;
	return rate_limiter_reserve(&r->rate_limiter, now);
}

void router_spend_refused(struct router *r, int64_t now)
{
	rate_limiter_refused(&r->rate_limiter, now, r->spent, r->inflight.sequence);
}

bool router_learned_pace(const struct router *r, int64_t now, double *rate, double *goal)
{
	*rate = rate_limiter_rate(&r->rate_limiter, now);
	*goal = r->rate_limiter.goal;
	return rate_limiter_is_lowered(&r->rate_limiter) && *rate > 0 && *rate < *goal;
}

void router_restore_pace(struct router *r, int64_t now, double rate, double goal)
{
	rate_limiter_restore(&r->rate_limiter, now, rate, goal);
}

int64_t router_pace_wait_ms(const struct router *r, const struct peer *peer, int64_t now)
{
	size_t ahead = sched_ahead(&r->sched, peer),
	       turns = r->sched.n - combine_spared(&r->combine);

	return rate_limiter_wait_ms(&r->rate_limiter, now, (ahead < turns ? ahead : turns) + 1);
}
