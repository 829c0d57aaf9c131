/* topics.h - who is subscribed to what, and what the service has been asked to tell.
 *
 * A topic is a key or a pattern that somebody is subscribed to, or waits to be, or that the present
 * token lists; a sub ties a client to a topic. Finding the topics of a change is one look-up by the
 * hash of its key, and one walk along the key for the patterns by their literal beginning
 * (radix.h). A topic's receivers lie in one array, so that a change for ten thousand of them runs
 * through memory in order.
 *
 * It also knows the two lists that matter while a token is replaced: what the present token covers,
 * and what the next one will (token_scope.h). A topic that nobody wants any more stays as long as a
 * token lists it by itself, so that subscribing again needs no new token; a token has room for few.
 *
 * Owns topics, subs and lists. Decides nothing: limits, answers and lines are subscriptions.h's and
 * fanout.h's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "subscriptions/token_scope.h"
#include "base/map.h"
#include "requests/pending.h"
#include "base/radix.h"

enum topic_kind { TOPIC_KEY, TOPIC_PATTERN, TOPIC_KIND_N };

struct receiver {
	struct peer *peer;
	struct sub *sub;
};

struct topic {
	struct map_node by_text; /* subs::topics of its kind */
	enum topic_kind kind;
	/* How the lists of the present token and of the next one cover it. */
	enum token_scope_how current, next;
	bool missed;      /* its receivers had it, and have it no more */
	int64_t left_at;  /* feed: since when, boot clock, as subscribers were told */
	uint32_t n, size; /* receivers */
	struct receiver *receivers;
	uint32_t n_joins;             /* feed: requests that wait for it */
	uint64_t batch;               /* feed: the last list that such requests are part of */
	uint64_t ending;              /* feed: the last unsubscribe that named it */
	uint64_t sequence;            /* later topics were made later */
	LIST_ENTRY(topic) of_literal; /* of a pattern: those with the same literal beginning */

	/* Of a key: what its subscribers know. */
	uint64_t changes;        /* that were handed on */
	uint64_t last_value;     /* value hash of the last of them; 0: none */
	struct reading *reading; /* reread: while the key is read for some of them; or NULL */

	uint32_t text_n;
	char text[]; /* decoded */
};

LIST_HEAD(topic_list, topic);

/* What a subscriber of a key still has to be told, once the key was read. */
enum sub_wish {
	SUB_NO_WISH,
	SUB_INITIAL,       /* its value */
	SUB_INITIAL_LATER, /* the same; the reading that is on its way was sent too early */
	SUB_RESYNC,        /* its value, if that is not what the client was told last */
	SUB_WISH_N
};

struct sub {
	struct map_node by_pair; /* subs::pairs */
	struct topic *topic;
	struct peer *peer;
	LIST_ENTRY(sub) of_peer; /* peer::subs */
	uint32_t place;          /* in topic::receivers */
	enum sub_wish wish;      /* reread */
	/* What the client was last told of the key: `told` if topic::changes is still told_at, else
	 * topic::last_value. 0: nothing. */
	uint64_t told, told_at;
};

struct topics {
	uint64_t seed;
	struct map topics[TOPIC_KIND_N];
	struct map pairs;
	struct radix globs;        /* patterns, by their literal beginning */
	size_t live[TOPIC_KIND_N]; /* topics with at least one receiver */
	size_t n;                  /* subs */
	size_t bytes;              /* of memory, about */
	size_t left_out;           /* live topics that the present token does not cover */
	uint64_t sequence;
	struct token_scope current, next;
	bool has_next;
};

void topics_init(struct topics *s, uint64_t seed);
void topics_fini(struct topics *s); /* all peers have left */

void topics_join(struct peer *peer);

/* How many there are, of both kinds. */
static inline size_t topics_count(const struct topics *s)
{
	return s->topics[TOPIC_KEY].n + s->topics[TOPIC_PATTERN].n;
}

/* Does the present token cover it? */
static inline bool topic_is_covered(const struct topic *t)
{
	return t->current != TOKEN_SCOPE_LEFT_OUT;
}

/* Does the next one, if its list was made? */
static inline bool topic_is_covered_next(const struct topic *t)
{
	return t->next != TOKEN_SCOPE_LEFT_OUT;
}

static inline struct span topic_text(const struct topic *t)
{
	return (struct span){t->text, t->text_n};
}

/* A pattern that goes on behind its first *. Each that begins as a key does has to be compared
 * with that. */
bool topic_is_glob(enum topic_kind kind, struct span text);

/* The hash that topics of keys are found by: that of notification.h. */
uint64_t topics_hash(const struct topics *s, struct span text);

struct topic *topics_find_topic(const struct topics *s, enum topic_kind kind, struct span text,
				uint64_t hash);
/* The same, made if it is not there. Whoever does not use it says topics_release(). */
struct topic *topics_get_topic(struct topics *s, enum topic_kind kind, struct span text);
void topics_release(struct topics *s, struct topic *t); /* freed, if nothing needs it */

struct sub *topics_find_sub(const struct topics *s, const struct peer *peer, const struct topic *t);
struct sub *topics_add_sub(struct topics *s, struct peer *peer,
			   struct topic *t); /* not yet there */
void topics_remove_sub(struct topics *s, struct sub *sub);

/* Calls visit with each pattern's topic that matches the key and has receivers. */
void topics_match_patterns(const struct topics *s, struct span key,
			   void (*visit)(void *owner, struct topic *t), void *owner);

/* All topics, in no order; as map_walk(). The last one may be released. */
struct topic_walk {
	enum topic_kind kind;
	struct map_walk walk;
};
struct topic *topics_walk(const struct topics *s, struct topic_walk *w);

/* Makes the list of the next token: of all topics that have receivers or whose batch is this one.
 * Appends it to *list as a JSON array; returns how many strings it has. What there is no room for
 * is not covered next. */
size_t topics_make_list(struct topics *s, uint64_t batch, size_t budget, struct buf *list);
/* The list that was made last is in force now: calls turned with each topic that has receivers and
 * is not covered any more, or again after that. */
void topics_accept_list(struct topics *s, void (*turned)(void *owner, struct topic *t),
			void *owner);
/* It will never be. */
void topics_reject_list(struct topics *s);
/* None is in force, and none was made: the same with each topic that has receivers and was covered.
 * turned may be NULL. */
void topics_forget_lists(struct topics *s, void (*turned)(void *owner, struct topic *t),
			 void *owner);
