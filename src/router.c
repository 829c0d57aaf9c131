#include "router.h"

#include <stdlib.h>
#include <string.h>

#include "inflight.h"
#include "log.h"
#include "mem.h"
#include "pace.h"
#include "pool.h"
#include "sched.h"

enum {
	OUTPUT_START = 4096,     /* bytes: room for a batch of answers without growing in steps */
	CODE_RATE_LIMITED = 429, /* the one answer of the service that is not for the client */
};

struct router {
	struct router_settings settings;
	const struct router_ops *ops;
	void *owner;
	struct stats *stats;
	uint64_t hash_seed;
	struct pool pool;
	struct sched sched;
	struct inflight inflight;
	struct pace pace;
	struct heap deadlines;
	int64_t wake; /* what wake_at was last told; -1: nothing */
	bool up, stopping;
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
	sched_init(&r->sched);
	inflight_init(&r->inflight, settings->max_in_flight);
	pace_init(&r->pace, settings->rate_limit, 0);
	return r;
}

/* ---- a pending comes and goes ---- */

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

/* A pending of the peer, with room for so much text. */
static struct pending *pending_new(struct router *r, struct peer *peer, size_t text_max,
				   bool with_id)
{
	size_t size = pool_size(sizeof(struct pending) + text_max);
	struct pending *p = pool_get(&r->pool, size);

	memset(p, 0, sizeof(*p));
	p->size = (uint32_t)size;
	p->peer = peer;
	TAILQ_INSERT_TAIL(&peer->pendings, p, of_peer);
	peer->unanswered++;
	if (!with_id)
		TAILQ_INSERT_TAIL(&peer->ordered, p, in_order);
	return p;
}

static void pending_free(struct router *r, struct pending *p)
{
	buf_release(&p->answer);
	pool_put(&r->pool, p, p->size);
}

/* Its one answer was handed on, or nobody is there to get it. */
static void pending_finish(struct router *r, struct pending *p)
{
	if (p->peer) {
		TAILQ_REMOVE(&p->peer->pendings, p, of_peer);
		p->peer->unanswered--;
	}
	pending_free(r, p);
}

/* Its place is free, and so is its key. */
static void land(struct router *r, struct pending *p, bool answered)
{
	inflight_remove(&r->inflight, p, answered);
	if (p->peer)
		sched_unblock(&r->sched, p->peer);
}

/* Takes p out of the state in which it waits for something to happen. */
static void pending_leave_state(struct router *r, struct pending *p, bool answered)
{
	heap_remove(&r->deadlines, &p->deadline);
	switch (p->state) {
	case PENDING_WAITING:
		sched_remove(&r->sched, p);
		break;
	case PENDING_SENT:
		land(r, p, answered);
		break;
	case PENDING_NEW:
	case PENDING_ANSWERED:
	case PENDING_STATE_N:
		break;
	}
	p->state = PENDING_NEW;
}

/* ---- answers ---- */

/* Hands on the answers at the head of the peer's order that are there. */
static void flush_ordered(struct router *r, struct peer *peer)
{
	struct pending *p;

	while ((p = TAILQ_FIRST(&peer->ordered)) && p->state == PENDING_ANSWERED) {
		struct span line = buf_span(&p->answer);
		TAILQ_REMOVE(&peer->ordered, p, in_order);
		peer->kept_bytes -= line.n;
		buf_add(peer->out, line.p, line.n);
		pending_finish(r, p);
	}
}

/* Where the answer's line goes: straight to the client's output, or, when it has no id and others
 * are before it, to the pending itself. answer_done() must follow. */
static struct buf *answer_begin(struct pending *p)
{
	if (p->id_len == 0 && TAILQ_FIRST(&p->peer->ordered) != p)
		return &p->answer;
	if (!p->peer->out->p)
		buf_room(p->peer->out, OUTPUT_START);
	return p->peer->out;
}

static void keep_answer(struct pending *p)
{
	p->state = PENDING_ANSWERED;
	p->peer->kept_bytes += buf_len(&p->answer);
}

static void answer_done(struct router *r, struct pending *p)
{
	struct peer *peer = p->peer;

	if (buf_len(&p->answer)) {
		keep_answer(p);
	} else {
		if (p->id_len == 0)
			TAILQ_REMOVE(&peer->ordered, p, in_order);
		pending_finish(r, p);
		flush_ordered(r, peer);
	}
	r->ops->changed(r->owner, peer);
}

static void answer_error(struct router *r, struct pending *p, enum reply_error error,
			 const char *text, long retry_ms)
{
	pending_leave_state(r, p, false);
	if (!p->peer) {
		pending_free(r, p);
		return;
	}
	reply_error(answer_begin(p), error, pending_id(p), text, retry_ms);
	answer_done(r, p);
}

void router_say(struct router *r, struct peer *peer, struct span line, bool with_id)
{
	if (with_id || TAILQ_EMPTY(&peer->ordered)) {
		buf_add(peer->out, line.p, line.n);
		r->ops->changed(r->owner, peer);
		return;
	}
	struct pending *p = pending_new(r, peer, 0, false);
	buf_add(&p->answer, line.p, line.n);
	keep_answer(p);
	r->ops->changed(r->owner, peer);
}

/* ---- sending ---- */

static bool can_send(struct router *r, int64_t now)
{
	if (!r->up || r->stopping || inflight_full(&r->inflight) || !r->ops->sendable(r->owner))
		return false;
	if (pace_allows(&r->pace, now))
		return true;
	wake_at(r, pace_next(&r->pace));
	return false;
}

/* While requests may be refused and sent again, only one at a time of a client and key is on its
 * way: the next could come before the repetition of the first. */
static bool must_wait(const struct router *r, const struct pending *p)
{
	return pace_is_lowered(&r->pace) && p->key_hash &&
	       inflight_has_key(&r->inflight, p->key_hash);
}

static void send_now(struct router *r, struct pending *p, int64_t now)
{
	char head[WIRE_HEAD_MAX];

	p->state = PENDING_SENT;
	inflight_add(&r->inflight, p);
	pace_spend(&r->pace, now);
	size_t n = wire_head(head, p->wire_id);
	r->ops->send(r->owner, (struct span){head, n}, pending_body(p));
	r->stats->requests_sent++;
	r->stats->upstream_bytes_out += n + p->body_len;
}

void router_pump(struct router *r, int64_t now)
{
	struct pending *p;

	while ((p = sched_first(&r->sched)) && can_send(r, now)) {
		struct peer *peer = p->peer;
		if (must_wait(r, p)) {
			sched_block(&r->sched, peer);
			continue;
		}
		send_now(r, sched_take(&r->sched), now);
		r->ops->changed(r->owner, peer);
	}
}

static void enqueue(struct router *r, struct pending *p)
{
	p->state = PENDING_WAITING;
	sched_add(&r->sched, p);
}

static uint64_t key_hash(const struct router *r, const struct peer *peer,
			 const struct request *request)
{
	if (!request_op_has_key(request->op))
		return 0;
	uint64_t h = json_string_hash(&request->key, r->hash_seed) ^
		     peer->number * UINT64_C(0x9e3779b97f4a7c15);
	return h ? h : 1;
}

void router_request(struct router *r, struct peer *peer, const struct request *request, int64_t now)
{
	struct pending *p =
		pending_new(r, peer, request->id.n + wire_body_max(request), request->id.n > 0);

	p->op = request->op;
	p->id_len = (uint32_t)request->id.n;
	if (p->id_len)
		memcpy(p->text, request->id.p, p->id_len);
	p->body_len = (uint32_t)wire_body(request, p->text + p->id_len);
	p->key_hash = key_hash(r, peer, request);
	if (r->stopping) {
		answer_error(r, p, REPLY_SHUTTING_DOWN, NULL, -1);
		return;
	}
	if (r->sched.bytes + p->size > r->settings.max_waiting_bytes) {
		r->stats->requests_queue_full++;
		answer_error(r, p, REPLY_QUEUE_FULL, NULL, -1);
		return;
	}
	watch_deadline(r, p,
		       now + (request->timeout_ms ? (int64_t)request->timeout_ms
						  : r->settings.request_timeout_ms));
	/* At once, if nobody waits for a turn and nothing of this client is before it. */
	if (!sched_first(&r->sched) && TAILQ_EMPTY(&peer->waiting) && can_send(r, now) &&
	    !must_wait(r, p))
		send_now(r, p, now);
	else
		enqueue(r, p);
}

/* ---- what comes back ---- */

static void answer_frame(struct router *r, struct pending *p, const struct wire_frame *frame)
{
	pending_leave_state(r, p, true);
	if (!p->peer) {
		pending_free(r, p);
		return;
	}
	struct span id = pending_id(p);
	struct buf *out = answer_begin(p);
	char *room = buf_room(out, wire_splice_max(frame, id));
	buf_grew(out, wire_splice(frame, id, room));
	r->stats->requests_answered++;
	answer_done(r, p);
}

/* The service has refused it because of its rate limit, so it was not executed: it waits for
 * another turn, unless a later one for its key was sent meanwhile, which must not come before it.
 */
static void refused(struct router *r, struct pending *p, int64_t now)
{
	static const char followed[] = "refused by the service's rate limit, and a later request "
				       "for its key was sent already";

	r->stats->upstream_refused++;
	pace_refused(&r->pace, now, p->sequence, r->inflight.sequence);
	if (!p->peer || p->followed || r->stopping) {
		answer_error(r, p, REPLY_RATE_LIMITED, p->followed ? followed : NULL,
			     (long)router_pace_wait_ms(r));
		return;
	}
	land(r, p, false);
	p->state = PENDING_WAITING;
	p->refused = true;
	sched_add_again(&r->sched, p);
}

static void answered(struct router *r, struct pending *p, const struct wire_frame *frame,
		     int64_t now)
{
	if (frame->code == CODE_RATE_LIMITED)
		refused(r, p, now);
	else
		answer_frame(r, p, frame);
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
			answer_error(r, p, REPLY_BAD_UPSTREAM, NULL, -1);
		break;
	case WIRE_NOTIFICATION:
		r->stats->upstream_notifications++;
		break;
	case WIRE_KIND_N:
		break;
	}
	if (p)
		router_pump(r, now);
}

/* ---- the connection comes and goes ---- */

void router_up(struct router *r, int64_t now)
{
	r->up = true;
	router_pump(r, now);
}

/* Sent again: a read whose client is still there, and which no later request of that client for the
 * same key has overtaken. The rest may have been executed or not. */
static bool may_resend(const struct pending *p)
{
	return p->peer && request_op_is_read(p->op) && !p->overtaken;
}

void router_down(struct router *r)
{
	size_t n;
	struct pending **sent = inflight_in_order(&r->inflight, &n);

	r->up = false;
	for (size_t i = 0; i < n; i++) {
		struct pending *p = sent[i];
		if (!may_resend(p) || r->stopping)
			continue;
		land(r, p, false);
		p->state = PENDING_WAITING;
		p->sent_before = true;
		sched_add_again(&r->sched, p);
		r->stats->requests_resent++;
		sent[i] = NULL;
	}
	for (size_t i = 0; i < n; i++) {
		if (!sent[i])
			continue;
		r->stats->requests_outcome_unknown++;
		answer_error(r, sent[i], REPLY_OUTCOME_UNKNOWN, NULL, -1);
	}
	free(sent);
}

/* ---- time ---- */

/* Why it was not sent in its time. full: all places were taken. */
static void answer_unsent(struct router *r, struct pending *p, bool full)
{
	if (p->sent_before)
		answer_error(r, p, REPLY_OUTCOME_UNKNOWN, NULL, -1);
	else if (!r->up)
		answer_error(r, p, REPLY_UPSTREAM_DOWN, NULL, r->ops->reconnect_ms(r->owner));
	else if (!r->ops->sendable(r->owner))
		answer_error(r, p, REPLY_QUEUE_FULL,
			     "not sent within its time: the network takes no more at present", -1);
	else if (p->refused || (r->pace.rate > 0 && !full))
		answer_error(r, p, REPLY_RATE_LIMITED, NULL, (long)router_pace_wait_ms(r));
	else
		answer_error(r, p, REPLY_QUEUE_FULL,
			     "not sent within its time: max_in_flight requests were on their way "
			     "ahead of it",
			     -1);
}

static void expire(struct router *r, struct pending *p, bool full)
{
	if (p->state == PENDING_SENT) {
		r->stats->requests_timeout++;
		answer_error(r, p, REPLY_TIMEOUT, NULL, -1);
		return;
	}
	r->stats->requests_unsent++;
	answer_unsent(r, p, full);
}

int64_t router_expire(struct router *r, int64_t now)
{
	struct heap_node *first;
	bool full = inflight_full(&r->inflight);

	while ((first = heap_first(&r->deadlines)) && first->at <= now)
		expire(r,
		       (struct pending *)(void *)((char *)first -
						  offsetof(struct pending, deadline)),
		       full);
	first = heap_first(&r->deadlines);
	r->wake = first ? first->at : -1;
	router_pump(r,
		    now); /* places are free again, or the pace allows more; it may wake sooner */
	return r->wake;
}

/* ---- clients ---- */

void router_join(struct router *r, struct peer *peer)
{
	(void)r;
	TAILQ_INIT(&peer->pendings);
	TAILQ_INIT(&peer->ordered);
	TAILQ_INIT(&peer->waiting);
	peer->unanswered = 0;
	peer->kept_bytes = 0;
	peer->blocked = false;
	peer->unsent_bytes = 0;
}

/* A request that was sent keeps its place until it is answered, but no longer than others would:
 * its client, who may have asked for ten minutes, is not there any more. */
static void orphan(struct router *r, struct pending *p, int64_t now)
{
	p->peer = NULL;
	if (p->deadline.at > now + r->settings.request_timeout_ms) {
		heap_remove(&r->deadlines, &p->deadline);
		watch_deadline(r, p, now + r->settings.request_timeout_ms);
	}
}

void router_leave(struct router *r, struct peer *peer, int64_t now)
{
	struct pending *p;

	while ((p = TAILQ_FIRST(&peer->pendings))) {
		TAILQ_REMOVE(&peer->pendings, p, of_peer);
		if (p->state == PENDING_SENT) {
			orphan(r, p, now);
			continue;
		}
		if (p->state == PENDING_WAITING)
			r->stats->requests_abandoned++;
		pending_leave_state(r, p, false);
		pending_free(r, p);
	}
}

bool router_may_read(const struct router *r, const struct peer *peer)
{
	return peer->unanswered < r->settings.max_pipeline &&
	       peer->unsent_bytes < r->settings.max_peer_waiting_bytes;
}

/* ---- the end ---- */

void router_stop(struct router *r)
{
	struct pending *p;

	r->stopping = true;
	sched_unblock_all(&r->sched);
	while ((p = sched_take(&r->sched))) {
		p->state = PENDING_NEW; /* sched has let go of it already */
		answer_error(r, p, p->sent_before ? REPLY_OUTCOME_UNKNOWN : REPLY_SHUTTING_DOWN,
			     NULL, -1);
	}
}

void router_abandon(struct router *r)
{
	size_t n;
	struct pending **sent = inflight_in_order(&r->inflight, &n);

	for (size_t i = 0; i < n; i++)
		answer_error(r, sent[i], REPLY_OUTCOME_UNKNOWN,
			     "the daemon has stopped before the answer came", -1);
	free(sent);
}

void router_free(struct router *r)
{
	router_abandon(r);
	inflight_fini(&r->inflight);
	heap_fini(&r->deadlines);
	pool_fini(&r->pool);
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

double router_pace(const struct router *r)
{
	return r->pace.rate;
}

int64_t router_pace_wait_ms(const struct router *r)
{
	return pace_wait_ms(&r->pace, r->sched.n + 1);
}
