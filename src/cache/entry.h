/* entry.h - what is remembered of keys, and the memory that it takes.
 *
 * An entry is found by its key (one look-up by hash) and in the order of keys. It is EMPTY unless
 * something is believed of its key. Those of `keys` also stand in the order of their last use; for
 * those of a mirror that link is the mirror's, who unlinks them before entries_forget().
 *
 * To forget everything is one step, however much there is: entries are of a generation, and those
 * of a former one are as good as gone. entries_sweep() frees them bit by bit. An entry that is busy
 * (fenced, or with readers) is renewed instead, when it is found.
 *
 * An entry counts its key, its value and ENTRY_COUNTED bytes; it really takes up to 120 more. Owns
 * entries and shapes. What is believed, and when, is decided above (truth.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/map.h"
#include "base/span.h"
#include "base/treap.h"
#include "cache/shape.h"

enum { ENTRY_COUNTED = 64, ENTRY_KEY_MAX = 65535 };

enum entry_state {
	ENTRY_EMPTY,   /* nothing is believed */
	ENTRY_FOUND,   /* a value */
	ENTRY_MISSING, /* there is no such record */
	ENTRY_STATE_N
};

enum { ORIGIN_KEYS, ORIGIN_MIRROR, ORIGINS_MAX = 255 }; /* ORIGIN_MIRROR + i: the mirror i */

struct entry {
	struct map_node by_key;  /* entries::keys */
	struct treap_node order; /* entries::order */
	/* entries::recent, of ORIGIN_KEYS; else the mirror's, while linked */
	TAILQ_ENTRY(entry) link;
	struct shape *shape;  /* unless EMPTY */
	char *value;          /* JSON text of value_n bytes, if FOUND */
	uint64_t changed;     /* truth: the tick of what made earlier answers doubtful */
	uint64_t told;        /* truth: hash of the value that was told since; 0: none */
	int64_t read_at;      /* truth: when it was read, or last confirmed; ms of the boot clock */
	uint32_t told_at;     /* truth: the tick at which `told` was brought last; low 32 bits */
	uint32_t answered_at; /* truth: when an answer has last spoken of the key; the same of ms */
	uint32_t value_n;
	uint32_t fences;  /* own writes that are not over */
	uint32_t readers; /* gets in flight */
	uint16_t generation;
	uint16_t key_n;
	uint8_t state; /* enum entry_state */
	uint8_t origin;
	bool linked;   /* of a mirror: stands in its queue */
	bool answered; /* truth: answered_at is set, and no notification was taken since */
	char key[];
};

TAILQ_HEAD(entry_list, entry);

struct entries {
	struct shapes shapes;
	uint8_t (*origin_of)(void *owner, struct span key); /* whose the key is now */
	void *owner;
	struct map keys;
	struct treap order;
	struct entry_list recent; /* the least recently used first */
	uint16_t generation;
	bool dropped[ORIGINS_MAX + 1];    /* by origin: as if of a former generation */
	size_t n;                         /* entries with something believed, of this generation */
	size_t n_of[ORIGINS_MAX + 1];     /* the same by origin */
	size_t found_of[ORIGINS_MAX + 1]; /* ... those that are FOUND */
	size_t bytes;                     /* counted, of all */
	bool swept;                       /* there are none of former generations */
	struct buf sweep_from;            /* entries_sweep() goes on here */
};

void entries_init(struct entries *es, uint8_t (*origin_of)(void *owner, struct span key),
		  void *owner);
void entries_fini(struct entries *es); /* frees all entries, busy or not */

static inline struct span entry_key(const struct entry *e)
{
	return (struct span){e->key, e->key_n};
}

static inline struct span entry_value(const struct entry *e)
{
	return (struct span){e->value, e->value_n};
}

static inline bool entry_is_busy(const struct entry *e)
{
	return e->fences || e->readers;
}

/* The key's entry; NULL: none. hash: as notification_key_hash(). */
struct entry *entries_find(struct entries *es, struct span key, uint64_t hash);
/* A new EMPTY one; there is none. The key has at most ENTRY_KEY_MAX bytes. */
struct entry *entries_make(struct entries *es, struct span key, uint64_t hash, uint8_t origin);
/* Of one that is busy: if it is of a former generation it is renewed. */
void entries_renew(struct entries *es, struct entry *e);
/* In the order of keys: the first from this key on; the first behind it; NULL: none. */
struct entry *entries_from(struct entries *es, struct span key);
struct entry *entries_behind(struct entries *es, struct span key);
static inline struct entry *entries_next(struct entries *es, const struct entry *e)
{
	return entries_behind(es, entry_key(e));
}

/* Takes over the reference to the shape; the value is copied. state is not EMPTY. */
void entries_set(struct entries *es, struct entry *e, enum entry_state state, struct shape *shape,
		 struct span value);
void entries_clear(struct entries *es, struct entry *e); /* EMPTY from now on */
void entries_drop(struct entries *es, struct entry *e);  /* not busy, nor linked: freed */
void entries_touch(struct entries *es, struct entry *e); /* of ORIGIN_KEYS: it was used */

/* Frees what is forgotten, then what was not used for longest, of ORIGIN_KEYS, until so much is
 * counted at most. False: more is still. */
bool entries_shrink(struct entries *es, size_t bytes);

void entries_forget(struct entries *es);
void entries_forget_origin(struct entries *es, uint8_t origin); /* until entries_forget() */
/* Frees up to n entries of former generations; false: there are no more. */
bool entries_sweep(struct entries *es, size_t n);
