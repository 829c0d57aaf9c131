#include "handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "map.h"
#include "mem.h"

/* Time. To find a change among those of its key is to look at one after the other, and a key can
 * have as many as the limit says, so a stream that is made for it could have each change look at
 * all of them. Each change therefore brings an allowance of LOOKS_PER_CHANGE marks, which adds up
 * until it is used: on the average no call looks at more, whatever comes. An allowance that is used
 * up ends the search as if there were nothing further back, so that a change may be delivered
 * twice. Honest connections never get there: each mark is looked at once when the new connection
 * first speaks of its key, once when its double comes, and at the move a few times, unless long
 * runs of values repeat almost. */
enum { LOOKS_PER_CHANGE = 16 };

/* What is known of a change that one connection has brought and the other has not. */
struct mark {
	STAILQ_ENTRY(mark) next;       /* of its key, the earliest first */
	STAILQ_ENTRY(mark) next_early; /* key::early, while it is early */
	uint64_t value_hash;
	int64_t timestamp;
	bool early; /* brought in the place of the old one, which will bring it too */
};

STAILQ_HEAD(marks, mark);

/* A change of the new connection that waits to be delivered. */
struct held {
	struct mark mark; /* in key::new_only; the first member, see held_of() */
	TAILQ_ENTRY(held) next;
	struct key *key;
	size_t n;
	char text[];
};

TAILQ_HEAD(held_list, held);

enum key_state {
	KEY_FRESH,     /* the new one has said nothing of it */
	KEY_UNALIGNED, /* the old one has yet to bring the first of new_only; old_only is older */
	KEY_ALIGNED,   /* one of the two lists is empty: that connection is behind, by the other */
};

/* 64 bits of keyed hash stand for the key, as they do wherever changes are told apart. */
struct key {
	struct map_node node; /* handover::keys */
	struct marks old_only;
	struct marks early;    /* those of old_only that are */
	struct marks new_only; /* those of struct held; none after the move */
	enum key_state state;
	bool covered;
};

struct handover {
	struct handover_limits limits;
	struct handover_learned *learned;
	const struct handover_ops *ops;
	void *owner;
	bool moved;
	bool old_stays; /* since the move, and has not gone */
	struct map keys;
	struct held_list held; /* of all keys, in order of arrival */
	size_t remembered;     /* keys, marks and held ones */
	size_t held_bytes;     /* their text */
	size_t unaligned;      /* covered keys in KEY_UNALIGNED */
	size_t looks;          /* marks that may yet be looked at */
	size_t dropped;
};

struct handover *handover_new(const struct handover_limits *limits,
			      struct handover_learned *learned, const struct handover_ops *ops,
			      void *owner)
{
	struct handover *h = mem_zalloc(sizeof(*h));

	h->limits = *limits;
	h->learned = learned;
	h->ops = ops;
	h->owner = owner;
	TAILQ_INIT(&h->held);
	return h;
}

/* ---- keys ---- */

static struct key *find_key(const struct handover *h, uint64_t hash)
{
	struct map_node *node = map_first(&h->keys, hash);

	return node ? map_entry(node, struct key, node) : NULL;
}

static bool full(const struct handover *h)
{
	return h->remembered >= h->limits.remembered;
}

/* NULL: the limit is reached. */
static struct key *make_key(struct handover *h, uint64_t hash)
{
	struct key *key = find_key(h, hash);

	if (key || full(h))
		return key;
	key = mem_zalloc(sizeof(*key));
	STAILQ_INIT(&key->old_only);
	STAILQ_INIT(&key->early);
	STAILQ_INIT(&key->new_only);
	map_add(&h->keys, &key->node, hash);
	h->remembered++;
	return key;
}

static void set_state(struct handover *h, struct key *key, enum key_state state)
{
	if (key->covered && key->state == KEY_UNALIGNED)
		h->unaligned--;
	key->state = state;
	if (key->covered && key->state == KEY_UNALIGNED)
		h->unaligned++;
}

static void deliver(struct handover *h, const struct change *change)
{
	h->ops->deliver(h->owner, change);
}

static struct mark mark_of(const struct change *change)
{
	return (struct mark){.value_hash = change->value_hash, .timestamp = change->timestamp};
}

/* ---- what the old connection brought ---- */

static int remember(struct handover *h, const struct change *change, bool early)
{
	struct key *key = make_key(h, change->key_hash);

	if (!key || full(h))
		return -ENOBUFS;
	struct mark *mark = mem_alloc(sizeof(*mark));
	*mark = mark_of(change);
	mark->early = early;
	STAILQ_INSERT_TAIL(&key->old_only, mark, next);
	if (early)
		STAILQ_INSERT_TAIL(&key->early, mark, next_early);
	h->remembered++;
	return 0;
}

/* The first that is early is so no more. */
static void end_early(struct key *key)
{
	STAILQ_FIRST(&key->early)->early = false;
	STAILQ_REMOVE_HEAD(&key->early, next_early);
}

static void forget_first(struct handover *h, struct key *key)
{
	struct mark *first = STAILQ_FIRST(&key->old_only);

	if (first->early)
		end_early(key); /* both lists have the same order */

	STAILQ_REMOVE_HEAD(&key->old_only, next);
	free(first);
	h->remembered--;
}

static void forget_before(struct handover *h, struct key *key, const struct mark *mark)
{
	while (STAILQ_FIRST(&key->old_only) != mark)
		forget_first(h, key);
}

static void forget_all(struct handover *h, struct key *key)
{
	forget_before(h, key, NULL);
}

/* ---- what is held of the new connection ---- */

static struct held *held_of(struct mark *mark)
{
	return (struct held *)(void *)mark;
}

static int hold(struct handover *h, struct key *key, const struct change *change)
{
	size_t n = change->text.n;

	if (full(h) || n > h->limits.held_bytes - h->held_bytes)
		return -ENOBUFS;
	struct held *held = mem_alloc(sizeof(*held) + n);
	held->mark = mark_of(change);
	held->key = key;
	held->n = n;
	if (n)
		memcpy(held->text, change->text.p, n);
	STAILQ_INSERT_TAIL(&key->new_only, &held->mark, next);
	TAILQ_INSERT_TAIL(&h->held, held, next);
	h->remembered++;
	h->held_bytes += n;
	return 0;
}

static void release_first(struct handover *h, struct key *key)
{
	struct held *held = held_of(STAILQ_FIRST(&key->new_only));

	STAILQ_REMOVE_HEAD(&key->new_only, next);
	TAILQ_REMOVE(&h->held, held, next);
	h->remembered--;
	h->held_bytes -= held->n;
	free(held);
}

static void deliver_first(struct handover *h, struct key *key)
{
	const struct held *held = held_of(STAILQ_FIRST(&key->new_only));
	struct change change = {
		.key_hash = key->node.hash,
		.value_hash = held->mark.value_hash,
		.timestamp = held->mark.timestamp,
		.text = {held->text, held->n},
	};

	deliver(h, &change);
	release_first(h, key);
}

/* ---- which changes are the same ---- */

enum likeness { DIFFERENT, LOOSELY_SAME, SAME };

static enum likeness likeness_of(const struct mark *one, const struct mark *other)
{
	int64_t a = one->timestamp, b = other->timestamp;

	if (one->value_hash != other->value_hash)
		return DIFFERENT;
	if (a == b)
		return SAME;
	/* Unsigned, since the distance of any two need not fit. */
	uint64_t apart = a < b ? (uint64_t)b - (uint64_t)a : (uint64_t)a - (uint64_t)b;
	return apart <= SAME_WITHIN_MS ? LOOSELY_SAME : DIFFERENT;
}

/* By what is known of stamps. */
static enum likeness compare(const struct handover *h, const struct mark *mark,
			     const struct change *change)
{
	struct mark other = mark_of(change);
	enum likeness likeness = likeness_of(mark, &other);

	if (likeness == LOOSELY_SAME && h->learned->stamps != HANDOVER_STAMPS_UNLIKE)
		return DIFFERENT;
	return likeness;
}

/* A double was found; these are its stamps. */
static void count_double(struct handover *h, int64_t one, int64_t other)
{
	struct handover_learned *learned = h->learned;

	h->dropped++;
	if (!one || !other)
		return;
	if (one != other) {
		learned->stamps = HANDOVER_STAMPS_UNLIKE;
		learned->equal = 0;
		return;
	}
	learned->equal += learned->equal < ALIKE_AFTER;
	if (learned->stamps != HANDOVER_STAMPS_UNLIKE || learned->equal == ALIKE_AFTER)
		learned->stamps = HANDOVER_STAMPS_ALIKE;
}

/* The earliest mark that is as like to the change as is enough; failing that, the earliest that is
 * loosely the same; NULL: none. */
static struct mark *find(struct handover *h, const struct marks *marks, const struct change *change,
			 enum likeness enough)
{
	struct mark *best = NULL;

	for (struct mark *m = STAILQ_FIRST(marks); m && h->looks; m = STAILQ_NEXT(m, next)) {
		h->looks--;
		enum likeness likeness = compare(h, m, change);
		if (likeness >= enough)
			return m;
		if (likeness == LOOSELY_SAME && !best)
			best = m;
	}
	return best;
}

/* What the new connection brings, among what only the old one has brought so far. When it speaks of
 * the key for the first time it can be any of them, so a value that was there before shall not be
 * mistaken for it. Later it is the first, unless something was skipped. */
static struct mark *find_in_old(struct handover *h, const struct key *key,
				const struct change *change)
{
	return find(h, &key->old_only, change, key->state == KEY_FRESH ? SAME : LOOSELY_SAME);
}

/* What the old connection brings, among what is held. Before the two are aligned, what it brings is
 * either the first of these or older than all. */
static struct mark *find_in_new(struct handover *h, const struct key *key,
				const struct change *change)
{
	struct mark *first = STAILQ_FIRST(&key->new_only);

	if (key->state == KEY_UNALIGNED)
		return compare(h, first, change) != DIFFERENT ? first : NULL;
	return find(h, &key->new_only, change, LOOSELY_SAME);
}

/* The new connection brings what the old one had brought. What comes before it in old_only is older
 * than the new connection, or was skipped by it. */
static void drop_double(struct handover *h, struct key *key, const struct mark *mark,
			const struct change *change)
{
	count_double(h, mark->timestamp, change->timestamp);
	forget_before(h, key, mark);
	forget_first(h, key);
	set_state(h, key, KEY_ALIGNED);
}

/* ---- while the old connection is believed ---- */

/* The old connection brings what is held. What is held before it was skipped by the old one, and is
 * delivered now, since it would be too late afterwards. */
static void deliver_held_double(struct handover *h, struct key *key, const struct mark *mark,
				const struct change *change)
{
	while (STAILQ_FIRST(&key->new_only) != mark)
		deliver_first(h, key);
	deliver(h, change);
	count_double(h, mark->timestamp, change->timestamp);
	release_first(h, key);
	forget_all(h, key); /* older than the new connection */
	set_state(h, key, KEY_ALIGNED);
}

static int deliver_old(struct handover *h, const struct change *change, bool early)
{
	struct key *key = find_key(h, change->key_hash);

	if (key && !STAILQ_EMPTY(&key->new_only)) {
		struct mark *mark = find_in_new(h, key, change);
		if (mark) {
			deliver_held_double(h, key, mark, change);
			return 0;
		}
		set_state(h, key, KEY_UNALIGNED);
	}
	deliver(h, change);
	return remember(h, change, early);
}

static int hold_new(struct handover *h, const struct change *change, bool covered)
{
	struct key *key = make_key(h, change->key_hash);

	if (!key)
		return -ENOBUFS;
	/* Before they are aligned all of old_only is known to be older, and not searched again. */
	struct mark *mark = key->state == KEY_UNALIGNED ? NULL : find_in_old(h, key, change);
	if (key->state == KEY_FRESH)
		key->covered = covered;
	if (mark) {
		drop_double(h, key, mark, change);
		return 0;
	}
	if (key->state == KEY_FRESH || !STAILQ_EMPTY(&key->old_only))
		set_state(h, key, KEY_UNALIGNED);
	return hold(h, key, change);
}

/* ---- the move ---- */

/* Do what is held and what the old one brought from here on agree as far as both reach? Compares
 * values, since it is asked when stamps have failed to align the key. */
static bool agrees(struct handover *h, const struct key *key, const struct mark *old)
{
	const struct mark *held = STAILQ_FIRST(&key->new_only);

	while (old && held) {
		if (!h->looks)
			return false;
		h->looks--;
		if (likeness_of(old, held) == DIFFERENT)
			return false;
		old = STAILQ_NEXT(old, next);
		held = STAILQ_NEXT(held, next);
	}
	return true;
}

/* The earliest in old_only from which on it agrees with what is held; NULL: none. */
static struct mark *find_overlap(struct handover *h, const struct key *key)
{
	struct mark *m = STAILQ_FIRST(&key->old_only);

	while (m && !agrees(h, key, m))
		m = STAILQ_NEXT(m, next);
	return m;
}

/* What is behind the overlap stays: in old_only as what the new one has yet to bring, in new_only
 * to be delivered. Without one all of old_only is older than what is held. */
static void align_by_values(struct handover *h, struct key *key)
{
	struct mark *overlap = find_overlap(h, key);

	forget_before(h, key, overlap);
	while (!STAILQ_EMPTY(&key->old_only) && !STAILQ_EMPTY(&key->new_only)) {
		count_double(h, STAILQ_FIRST(&key->old_only)->timestamp,
			     STAILQ_FIRST(&key->new_only)->timestamp);
		forget_first(h, key);
		release_first(h, key);
	}
	set_state(h, key, KEY_ALIGNED);
}

/* All of old_only is older than what is held. */
static void align_as_older(struct handover *h, struct key *key)
{
	forget_all(h, key);
	set_state(h, key, KEY_ALIGNED);
}

/* Shall values decide, for keys that stamps have not aligned? Many equal stamps in a row speak
 * against it; if they were chance all the same, the next move knows better. */
static bool values_decide(struct handover_learned *learned, bool waited)
{
	bool alike = learned->stamps == HANDOVER_STAMPS_ALIKE && learned->equal == ALIKE_AFTER;

	if (waited && alike)
		learned->equal = 0;
	return waited && !alike;
}

static void align_all(struct handover *h, bool by_values)
{
	struct map_walk walk = {0};
	struct map_node *node;

	while ((node = map_walk(&h->keys, &walk))) {
		struct key *key = map_entry(node, struct key, node);
		if (key->state != KEY_UNALIGNED)
			continue;
		if (by_values)
			align_by_values(h, key);
		else
			align_as_older(h, key);
	}
}

/* ---- once the new connection is believed ---- */

/* What is held of the key, and all that follows of it, is the new one's. */
static void let_go(struct handover *h, struct key *key)
{
	while (!STAILQ_EMPTY(&key->new_only))
		deliver_first(h, key);
	forget_all(h, key); /* older than what was held */
	set_state(h, key, KEY_ALIGNED);
}

/* Was it brought in the place of the old one, which brings it now? Both bring changes in the same
 * order, so the early ones before it are past, and all of them if it is none. Each is looked at
 * once that way, so it costs nothing of the allowance that finding doubles needs. */
static bool was_early(struct key *key, const struct change *change)
{
	struct mark now = mark_of(change);
	bool same = false;

	while (!same && !STAILQ_EMPTY(&key->early)) {
		same = likeness_of(STAILQ_FIRST(&key->early), &now) == SAME;
		end_early(key);
	}
	return same;
}

/* Of what the new one has spoken of it tells all that follows; while that is held, what the old one
 * brings is either older, or the first of it. */
static int deliver_late(struct handover *h, const struct change *change)
{
	struct key *key = find_key(h, change->key_hash);
	bool holds = key && key->state == KEY_UNALIGNED;
	struct mark *first = holds ? find_in_new(h, key, change) : NULL;

	if (first) {
		count_double(h, first->timestamp, change->timestamp);
		let_go(h, key);
		return 0;
	}
	if (key && (key->state == KEY_ALIGNED || was_early(key, change))) {
		h->dropped++;
		return 0;
	}
	deliver(h, change);
	return holds ? 0 : remember(h, change, false);
}

static int deliver_new_at_once(struct handover *h, struct key *key, const struct change *change)
{
	deliver(h, change);
	if (!key)
		return -ENOBUFS;
	forget_all(h, key); /* the new one is past them */
	set_state(h, key, KEY_ALIGNED);
	return 0;
}

static int deliver_new(struct handover *h, const struct change *change, bool covered)
{
	struct key *key = make_key(h, change->key_hash);
	bool holds = key && key->state == KEY_UNALIGNED;
	struct mark *mark = key && !holds ? find_in_old(h, key, change) : NULL;

	if (mark) {
		drop_double(h, key, mark, change);
		return 0;
	}
	if (key && (holds || (h->old_stays && covered && key->state == KEY_FRESH))) {
		set_state(h, key, KEY_UNALIGNED);
		if (hold(h, key, change) == 0)
			return 0;
		let_go(h, key);
		deliver(h, change);
		return -ENOBUFS;
	}
	return deliver_new_at_once(h, key, change);
}

void handover_old_stays(struct handover *h)
{
	h->old_stays = true;
}

void handover_old_gone(struct handover *h)
{
	h->old_stays = false;
	while (h->moved && !TAILQ_EMPTY(&h->held)) {
		struct key *key = TAILQ_FIRST(&h->held)->key;
		forget_all(h, key);
		set_state(h, key, KEY_ALIGNED);
		deliver_first(h, key);
	}
}

bool handover_holds(const struct handover *h, uint64_t key_hash)
{
	const struct key *key = find_key(h, key_hash);

	return key && !STAILQ_EMPTY(&key->new_only);
}

/* ---- the two connections ---- */

int handover_old_brings(struct handover *h, const struct change *change)
{
	h->looks += LOOKS_PER_CHANGE;
	return h->moved ? deliver_late(h, change) : deliver_old(h, change, false);
}

int handover_old_will_bring(struct handover *h, const struct change *change)
{
	h->looks += LOOKS_PER_CHANGE;
	return deliver_old(h, change, true);
}

int handover_new_brings(struct handover *h, const struct change *change, bool covered)
{
	h->looks += LOOKS_PER_CHANGE;
	return h->moved ? deliver_new(h, change, covered) : hold_new(h, change, covered);
}

bool handover_aligned(const struct handover *h)
{
	return h->unaligned == 0;
}

void handover_move(struct handover *h, bool waited)
{
	if (!h->moved)
		align_all(h, values_decide(h->learned, waited));
	h->moved = true;
	while (!TAILQ_EMPTY(&h->held))
		deliver_first(h, TAILQ_FIRST(&h->held)->key);
}

size_t handover_dropped(const struct handover *h)
{
	return h->dropped;
}

void handover_free(struct handover *h)
{
	struct map_walk walk = {0};
	struct map_node *node;

	while ((node = map_walk(&h->keys, &walk))) {
		struct key *key = map_entry(node, struct key, node);
		forget_all(h, key);
		while (!STAILQ_EMPTY(&key->new_only))
			release_first(h, key);
		map_remove(&h->keys, node); /* the last one takes the map's memory with it */
		free(key);
	}
	free(h);
}
