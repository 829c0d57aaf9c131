#include "requests/key_order.h"

#include "codec/json.h"

static uint64_t hash_of_peer(const struct peer *peer)
{
	return peer->number * UINT64_C(0x9e3779b97f4a7c15);
}

uint64_t key_order_hash(const struct peer *peer, const struct request *request, uint64_t seed)
{
	if (!request_op_has_key(request->op))
		return 0;
	uint64_t h = json_string_hash(&request->key, seed) ^ hash_of_peer(peer);
	return h ? h : 1;
}

uint64_t key_order_hash_of_key(const struct peer *peer, uint64_t key_hash)
{
	return key_hash ^ hash_of_peer(peer);
}

/* While requests may be refused and sent again, one request of a client and key is in flight at a
 * time: a second one could take effect before the first is repeated. Nor is a request repeated
 * before those behind it have ended. Nor are two in flight on two connections, of which the later
 * may be faster; this holds even after the first has timed out. */
bool key_order_must_wait(const struct pending *p, const struct inflight *inflight,
			 const struct unsettled *unsettled, uint32_t connection, bool alone)
{
	if (!p->key_hash)
		return false;
	if (unsettled_has(unsettled, p->key_hash, connection))
		return true;
	const struct pending *other = inflight_last_of_key(inflight, p->key_hash);
	return other && (alone || p->refused || other->inflight.connection != connection);
}

struct key_order_effect key_order_effect_of(const struct pending *p, enum inflight_end end)
{
	if (p->state != PENDING_SENT || !p->inflight.follows || !inflight_has_effect(p, end))
		return (struct key_order_effect){0};
	return (struct key_order_effect){p->peer, p->key_hash, p->answers.order};
}

/* Requests that the rate limit refused are at the head of the queue; mostly there are none. */
struct pending *key_order_find_superseded(const struct key_order_effect *e)
{
	struct pending *p;

	if (!e->peer->sched.refused)
		return NULL;
	TAILQ_FOREACH (p, &e->peer->sched.waiting, waiting) {
		if ((int32_t)(p->answers.order - e->order) >= 0)
			break;
		if (p->refused && p->key_hash == e->key_hash)
			return p;
	}
	return NULL;
}
