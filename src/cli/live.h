/* live.h - the records whose keys match a glob, and that of one key besides, held in memory and
 * kept true by a subscription.
 *
 * The memory follows the notifications in their order, and so holds a state that the store has had.
 * Two things may break that. A notification may carry something else than the value (of a patch,
 * say), so each changed key is read as well; if the two differ, and no newer notification explains
 * it, what was read counts. And changes may be missed: after a gap all is read anew. Meanwhile, and
 * until what was read is explained, live_is_ready() says no.
 *
 * Runs in the caller's loop: live_step(), then wait for hpkv_fd() or for as long as it says, then
 * hpkv_process(). Says on stderr when the service or the daemon comes and goes. */
#pragma once

#include <sys/queue.h>

#include "base/map.h"
#include "base/span.h"
#include "cli.h"
#include "pages.h"

enum live_check {
	LIVE_SURE,
	LIVE_TO_READ, /* was notified, is to be read */
	LIVE_READING,
	LIVE_DIFFERS /* was read, and differs from what was notified */
};

struct live_record {
	struct map_node node;           /* live::records */
	TAILQ_ENTRY(live_record) doubt; /* live::doubts, unless it is LIVE_SURE */
	struct live *live;
	enum live_check check;
	bool again;       /* something has come since it was asked for */
	unsigned seen;    /* the load that has found it … */
	unsigned touched; /* … or during which it was notified */
	long long due;    /* ms: when to read it, or to believe what was read */
	char *value;      /* owned; NULL: there is no such key (any more) */
	size_t n;
	char *read; /* owned; what was read, while it differs; NULL: no such key */
	size_t read_n;
	bool told; /* for the caller: it was complained of */
	size_t key_n;
	char key[];
};

TAILQ_HEAD(live_list, live_record);

struct live {
	struct cli *c;
	struct span glob;  /* p NULL: none */
	struct span extra; /* a key besides; p NULL: none */
	uint64_t seed;     /* of the hashes */
	struct map records;
	struct live_list doubts;
	unsigned reading; /* records asked for and not answered */
	bool patient;     /* a service that is away is waited for; else it is a failure */
	int status;       /* an enum cli_exit: why it has ended; 0 */

	enum { LIVE_UNSUBSCRIBED, LIVE_SUBSCRIBING, LIVE_SUBSCRIBED } phase;
	struct pages pages;
	unsigned load;    /* the number of the present one, or of the last */
	bool loading;     /* pages are being read */
	bool at_extra;    /* … of the key besides */
	bool asked;       /* … and one is under way */
	bool reload;      /* something was missed: read all (again) */
	bool away;        /* the service or the daemon is */
	bool complained;  /* of that, at the beginning */
	long long due;    /* ms: when to subscribe, or to ask for the page, again */
	bool disordered;  /* changes were skipped: only a quiet moment is a state */
	bool distrusted;  /* notifications do not carry values */
	unsigned version; /* changes with each change of the records */
	long long changed,
		changing; /* ms: the last change, the first since the last quiet moment */
};

/* glob or extra may be NULL. patient: see there. Nothing happens before live_step(). */
void live_begin(struct live *l, struct cli *c, const char *glob, const char *extra, bool patient);

/* Does what is due. Returns for how many ms there is nothing to do, or -1. */
int live_step(struct live *l);

/* Do the records stand for a state of the store? If not yet, live_step() says when to ask again. */
bool live_is_ready(struct live *l);

/* The records that there are, in the order of their keys; *n of them. Free the list. */
struct live_record **live_list(struct live *l, size_t *n);

/* Frees the handle, on which requests may be under way, and the records. */
void live_end(struct live *l);

static inline struct span live_key(const struct live_record *r)
{
	return (struct span){r->key, r->key_n};
}
