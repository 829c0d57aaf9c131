/* combine.h - requests for the same key that wait to be sent, and go as one.
 *
 * Gets: the turn of one serves all clients whose gets for the key wait; each is given the answer.
 * Increments by whole numbers: their sum is sent, and each is given the value as if they had been
 * executed one after another. A request that was sent already is never joined: its answer may be
 * older than the question.
 *
 * The leader is the one whose turn it is: its frame is sent. Its companions go along with it: they
 * are in flight without a frame or a slot of their own. A request whose time is up, or whose client
 * leaves, leaves the others; if it is the leader, another one takes its place.
 *
 * Not combined: requests of clients on trial (blame.h), and one behind an earlier request of its
 * client for the key that still waits and does not go along: it would overtake that. A get may
 * overtake other gets.
 *
 * Owns the index of those that wait, and pending::combined. Sends nothing and answers nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "codec/wire.h"
#include "requests/pending.h"

/* By so many bytes the body of a sum may be longer than that of its leader: the number has up to 20
 * characters, in place of one at least. */
enum { COMBINE_GROWTH = 19 };

enum combine_kinds { COMBINE_GETS = 1, COMBINE_INCREMENTS = 2 };

struct combine {
	unsigned kinds;  /* of enum combine_kinds */
	struct map keys; /* that requests wait for */
	size_t waiting;  /* requests */
	/* Steps that may be taken at `at` to find companions. */
	unsigned steps;
	int64_t at;
	uint64_t searches; /* so far */
};

void combine_fini(struct combine *c);

/* p begins to wait to be sent. */
void combine_add(struct combine *c, struct pending *p);
/* It does not wait any more, as it goes along with another ... */
void combine_unindex(struct combine *c, struct pending *p);
/* ... or for another reason; nothing happens if it was not added. It is nobody's companion. */
void combine_drop(struct combine *c, struct pending *p);

/* How many of those that wait need no turn of their own? */
static inline size_t combine_spared(const struct combine *c)
{
	return c->waiting - c->keys.n;
}

/* Does another request wait that p, which does not, could go along with? */
bool combine_has_other(const struct combine *c, const struct pending *p);
/* Those that can go along with p, which was just removed: an array that the caller frees, in the
 * order in which they take effect; *n is their number. may_go: says no of one that its client's
 * order holds back. Looks at as many as there are steps for: the others wait for another turn. */
struct pending **combine_find(struct combine *c, const struct pending *p,
			      bool (*may_go)(void *owner, const struct pending *p), void *owner,
			      int64_t now, size_t *n);
/* False: there are none, as nothing waits at all. */
static inline bool combine_has_any(const struct combine *c)
{
	return c->waiting > 0;
}
/* They go along with it. Increments: appends the body of the frame to *body, and returns true.
 * False, and none goes along: the sum is too large. */
bool combine_join(struct pending *leader, struct pending *const *companions, size_t n,
		  struct buf *body);

/* Is it an increment that was sent with others? */
bool combine_shares_value(const struct pending *p);

/* Takes p out: of the leader's companions, or as a leader. Then returns who is leader now; NULL:
 * nobody is, or it was no leader. */
struct pending *combine_leave(struct pending *p);
/* All companions of the leader, none of whom is one any more; as combine_find(). */
struct pending **combine_disband(struct pending *leader, size_t *n);

/* The service's answer to combined increments, as p is given it: its text in *text and its parts in
 * *own. False: the value can't be told. */
bool combine_answer(const struct pending *p, const struct wire_frame *frame, struct buf *text,
		    struct wire_frame *own);
