/* topics.h - who is subscribed to what, and which names the tokens cover.
 *
 * A topic is a key or a pattern that has subscribers or joins, or that a token lists. A sub ties a
 * client to a topic. The topics of a change are found by one look-up of the key's hash and one walk
 * along the key for the patterns by their literal prefix (radix.h). The receivers of a topic are
 * one array, so that a change for ten thousand of them goes through memory in order.
 *
 * Two lists matter while a token is replaced, that of the present token and that of the next one
 * (token_scope.h). A topic without subscribers stays while a token lists it by itself, so that
 * subscribing again needs no new token. The lists of the next minute have it as well, as far as
 * there is room: see topics_make_list().
 *
 * Owns topics, subs, lists and struct topics_peer. Limits and answers are up to subscriptions.h,
 * lines to fanout.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "subscriptions/token_scope.h"
#include "base/map.h"
#include "requests/pending.h"
#include "base/radix.h"

/* Topics that have lost their last subscriber are listed so long, and so many of them. */
enum { TOPICS_LEFT_MS = 60000, TOPICS_LEFT_MAX = 256 };

enum topic_kind { TOPIC_KEY, TOPIC_PATTERN, TOPIC_KIND_N };

struct receiver {
	struct peer *peer;
	struct sub *sub;
};

struct topic {
	struct map_node by_text; /* topics::topics of its kind */
	enum topic_kind kind : 8;
	/* How the lists of the present token and of the next one cover it. */
	enum token_scope_how current : 8, next : 8;
	bool missed;       /* has receivers, was covered for them, and is not any more */
	uint32_t n_joins;  /* subscriptions: those that wait for it */
	uint64_t sequence; /* counts topics */
	uint32_t n, size;  /* receivers */
	struct receiver *receivers;
	TAILQ_ENTRY(topic) of_left; /* topics::left, while left_at is not 0 */
	int64_t left_at;            /* when its last subscriber has left */

	/* subscriptions */
	uint64_t batch;    /* the last list that joins were tried with */
	uint64_t ending;   /* the last unsubscribe that named it */
	int64_t gap_since; /* while it is not covered: the begin of the gap, boot clock */

	union {
		LIST_ENTRY(topic) of_literal; /* of a pattern: those with the same literal prefix */
		struct {                      /* of a key; fanout */
			uint64_t changes;     /* delivered */
			uint64_t last_value;  /* value hash of the last of them; 0: none */
		};
	};
	struct reading *reading; /* resync; of a key; NULL: it is not being read */

	uint32_t text_n;
	char text[]; /* decoded */
};

LIST_HEAD(topic_list, topic);

/* What a subscriber of a key waits for. */
enum sub_wish {
	SUB_NO_WISH,
	SUB_INITIAL,       /* the value */
	SUB_INITIAL_LATER, /* the value, by the next reading: the present one was sent too early */
	SUB_RESYNC,        /* the value, if it is not the one that the client was told last */
	SUB_WISH_N
};

struct sub {
	struct map_node by_pair; /* topics::pairs */
	struct topic *topic;
	struct peer *peer;
	LIST_ENTRY(sub) of_peer; /* topics_peer::subs */
	uint32_t receiver;       /* index in topic::receivers */
	enum sub_wish wish;      /* resync */
	/* resync: hash of the value that the client was told last; 0: none. It is `told` while
	 * topic::changes equals told_at, and topic::last_value after further changes. */
	uint64_t told, told_at;
};

struct topics {
	uint64_t seed;
	struct map topics[TOPIC_KIND_N];
	struct map pairs;
	struct radix globs;        /* lists of patterns, by their literal prefix */
	size_t live[TOPIC_KIND_N]; /* topics with at least one receiver */
	size_t n;                  /* subs */
	size_t bytes;              /* of memory, about */
	size_t left_out;           /* topics with receivers that the present token does not cover */
	uint64_t sequence;
	struct token_scope current, next;
	bool has_next;
	TAILQ_HEAD(topic_left, topic) left; /* those that are still listed, the longest ago first */
	size_t n_left;
	bool listed_left; /* the list made last has one of them */
};

void topics_init(struct topics *s, uint64_t seed);
void topics_fini(struct topics *s); /* after all peers have left */

void topics_join(struct peer *peer);

/* The number of topics. */
static inline size_t topics_count(const struct topics *s)
{
	return s->topics[TOPIC_KEY].n + s->topics[TOPIC_PATTERN].n;
}

/* Does the present token cover it? */
static inline bool topic_is_covered(const struct topic *t)
{
	return t->current != TOKEN_SCOPE_LEFT_OUT;
}

/* Does the list of the next token cover it? No, if there is none. */
static inline bool topic_is_covered_next(const struct topic *t)
{
	return t->next != TOKEN_SCOPE_LEFT_OUT;
}

static inline struct span topic_text(const struct topic *t)
{
	return (struct span){t->text, t->text_n};
}

/* Is it a pattern with text behind its first *? A key with its prefix has to be compared with
 * it. */
bool topic_is_glob(enum topic_kind kind, struct span text);

/* The hash by which topics of keys are found, the same as in notification.h. */
uint64_t topics_hash(const struct topics *s, struct span text);

struct topic *topics_find_topic(const struct topics *s, enum topic_kind kind, struct span text,
				uint64_t hash);
/* The same; makes the topic if there is none. Call topics_release() if it is not used. */
struct topic *topics_get_topic(struct topics *s, enum topic_kind kind, struct span text);
void topics_release(struct topics *s, struct topic *t); /* frees it, unless it is in use */

struct sub *topics_find_sub(const struct topics *s, const struct peer *peer, const struct topic *t);
struct sub *topics_add_sub(struct topics *s, struct peer *peer,
			   struct topic *t); /* there is none yet */
void topics_remove_sub(struct topics *s, struct sub *sub, int64_t now);

/* Calls visit with each pattern that matches the key and has receivers. */
void topics_match_patterns(const struct topics *s, struct span key,
			   void (*visit)(void *owner, struct topic *t), void *owner);

/* Walks all topics, in no order. The topic returned last may be released. */
struct topic_walk {
	enum topic_kind kind;
	struct map_walk walk;
};
struct topic *topics_walk(const struct topics *s, struct topic_walk *w);

/* Makes the list of the next token: of all topics with receivers or with joins of this batch.
 * Appends it to *list as a JSON array; returns the number of its strings. Topics without room are
 * not covered next. A list that takes less than half of its budget also has the topics that were
 * left last, up to that half. */
size_t topics_make_list(struct topics *s, uint64_t batch, size_t budget, int64_t now,
			struct buf *list);
/* Later lists have no topic that was left before now. True: the one that was made last had some. */
bool topics_forget_left(struct topics *s);
/* The list that was made last is in force. Calls turned with each topic that has receivers and has
 * lost its coverage, or got it back. */
void topics_accept_list(struct topics *s, void (*turned)(void *owner, struct topic *t),
			void *owner);
/* The list that was made last will not come into force. */
void topics_reject_list(struct topics *s);
/* No list is in force or made. Calls turned with each topic that has receivers and was covered.
 * turned may be NULL. */
void topics_forget_lists(struct topics *s, void (*turned)(void *owner, struct topic *t),
			 void *owner);
