#include "requests/answers.h"

#include <string.h>

#include "base/mem.h"
#include "base/shared_line.h"
#include "codec/reply.h"

enum { SECRET_LINE_OWN = 32 }; /* bytes of the line beside object and id, at most */

void answers_init(struct answers *a, void (*turn)(void *owner, struct pending *p), void *owner)
{
	*a = (struct answers){.turn = turn, .owner = owner};
}

void answers_fini(struct answers *a)
{
	pool_fini(&a->pool);
}

void answers_join(struct peer *peer)
{
	peer->answers = (struct answers_peer){.unanswered = 0};
	TAILQ_INIT(&peer->answers.pendings);
	TAILQ_INIT(&peer->answers.ordered);
}

/* ---- pendings ---- */

struct pending *answers_new(struct answers *a, struct peer *peer, size_t text_max, bool with_id)
{
	size_t size = pool_size(sizeof(struct pending) + text_max);
	struct pending *p = pool_get(&a->pool, size);

	memset(p, 0, sizeof(*p));
	p->answers.size = (uint32_t)size;
	p->peer = peer;
	p->answers.order = ++peer->answers.asked;
	TAILQ_INSERT_TAIL(&peer->answers.pendings, p, answers.of_peer);
	peer->answers.unanswered++;
	if (!with_id)
		TAILQ_INSERT_TAIL(&peer->answers.ordered, p, answers.in_order);
	return p;
}

void answers_drop(struct answers *a, struct pending *p)
{
	if (p->answers.secret)
		buf_wipe(&p->answers.line);
	buf_release(&p->answers.line);
	pool_put(&a->pool, p, p->answers.size);
}

void answers_orphan(struct pending *p)
{
	TAILQ_REMOVE(&p->peer->answers.pendings, p, answers.of_peer);
	p->peer->answers.unanswered--;
}

void answers_forget(struct answers *a, struct pending *p)
{
	answers_orphan(p);
	answers_drop(a, p);
}

/* ---- answers in their order ---- */

/* A line with a secret is put out as a shared line, which is wiped when it is freed. The output
 * buffer, which leaves copies when it grows, never holds it. */
static void put_secret(struct outq *out, struct span line)
{
	struct shared_line *shared = shared_line_new(line.n, (struct span){0});

	shared->secret = true;
	memcpy(shared->text, line.p, line.n);
	outq_push(out, shared);
	shared_line_unref(shared);
}

static void hand_on(struct answers *a, struct pending *p)
{
	struct peer *peer = p->peer;
	struct span line = buf_span(&p->answers.line);

	TAILQ_REMOVE(&peer->answers.ordered, p, answers.in_order);
	peer->answers.kept_bytes -= line.n;
	if (p->answers.secret)
		put_secret(&peer->out, line);
	else
		buf_add(&peer->out.own, line.p, line.n);
	answers_forget(a, p);
}

/* Puts out the kept answers at the head of the peer's order. turn() may answer a deferred request
 * at once and so call this again; the outer call then goes on. */
static void flush_ordered(struct answers *a, struct peer *peer)
{
	struct pending *p;

	if (peer->answers.flushing)
		return;
	peer->answers.flushing = true;
	while ((p = TAILQ_FIRST(&peer->answers.ordered))) {
		if (p->state == PENDING_ANSWERED) {
			hand_on(a, p);
		} else if (p->state == PENDING_DEFERRED && !p->answers.had_turn) {
			p->answers.had_turn = true;
			a->turn(a->owner, p);
		} else {
			break;
		}
	}
	peer->answers.flushing = false;
}

size_t answers_first_kept(const struct peer *peer)
{
	const struct pending *p;

	TAILQ_FOREACH (p, &peer->answers.ordered, answers.in_order) {
		if (p->state == PENDING_ANSWERED)
			return buf_len(&p->answers.line);
	}
	return 0;
}

bool answers_is_next(const struct pending *p)
{
	return p->id_len || TAILQ_FIRST(&p->peer->answers.ordered) == p;
}

/* The client's output; or, for an answer that has to wait for others, the pending. */
struct buf *answers_begin(struct pending *p)
{
	if (p->id_len == 0 && TAILQ_FIRST(&p->peer->answers.ordered) != p)
		return &p->answers.line;
	return &p->peer->out.own;
}

static void keep_answer(struct pending *p)
{
	p->state = PENDING_ANSWERED;
	p->peer->answers.kept_bytes += buf_len(&p->answers.line);
}

void answers_done(struct answers *a, struct pending *p)
{
	struct peer *peer = p->peer;

	if (buf_len(&p->answers.line)) {
		keep_answer(p);
		return;
	}
	if (p->id_len == 0)
		TAILQ_REMOVE(&peer->answers.ordered, p, answers.in_order);
	answers_forget(a, p);
	flush_ordered(a, peer);
}

void answers_put_secret(struct pending *p, struct span object)
{
	struct buf line = {0};
	struct buf *out = answers_begin(p);
	size_t n = object.n + p->id_len + SECRET_LINE_OWN;

	p->answers.secret = true;
	if (out == &p->answers.line) {
		buf_room(out, n);
		reply_object(out, object, pending_id(p));
	} else {
		buf_room(&line, n);
		reply_object(&line, object, pending_id(p));
		put_secret(&p->peer->out, buf_span(&line));
		buf_wipe(&line);
	}
}

void answers_say(struct answers *a, struct peer *peer, struct span line, bool with_id)
{
	if (with_id || TAILQ_EMPTY(&peer->answers.ordered)) {
		buf_add(&peer->out.own, line.p, line.n);
		return;
	}
	struct pending *p = answers_new(a, peer, 0, false);
	buf_add(&p->answers.line, line.p, line.n);
	keep_answer(p);
}
