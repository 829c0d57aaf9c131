/* lanes.h - the connections to the service that there are at a time, and how one of them takes over
 * from another.
 *
 * A connection is called a lane here. One lane counts (main): requests go out on it, and what it
 * brings is delivered. Another one may be made beside it (next). Where there is no main lane, the
 * next one takes its place once it has answered a ping, or, without a token, once it is open: such
 * a lane brings no notifications. Else:
 *
 *     connecting -> proving -> catching -> ops->moved()
 *                        |          |
 *                        |   the main lane answers a ping: it has brought all changes before that
 *                 the next lane answers a ping: it is subscribed for certain
 *
 * The main lane is then the former one. A lane that was left stays until its requests are answered;
 * the former one also stays for LINGER_MS if it and the main one bring notifications, or writes
 * that were given up may take effect there yet.
 *
 * The notifications of all lanes become one stream, each change once (handover.h).
 *
 * Owns the lanes, their timers and that stream. Why a lane is made, with what, and what follows
 * when one ends is decided above (upstream.h); nothing is tried again here. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "conn.h"
#include "handover.h"
#include "place.h"
#include "stats.h"
#include "wire.h"

/* How far the next lane is. */
enum lanes_stage {
	LANES_NONE, /* there is none */
	LANES_CONNECTING,
	LANES_PROVING,  /* it is open, and was sent a ping */
	LANES_CATCHING, /* ... has answered it; the main one was sent a ping */
	LANES_STAGE_N
};

struct lanes;

struct lane {
	TAILQ_ENTRY(lane) of_all; /* lanes::all */
	struct lanes *lanes;
	struct place *place;
	struct conn *conn;
	uint32_t number; /* not used again */
	bool token;      /* opened with one */
	bool busy;       /* it was left, and some of its requests are not answered */
	bool closing;
};

struct lanes_ops {
	/* The next lane is the main one now. first: there was none. moved: what is in flight on the
	 * former one stays there; lanes_idle() says when nothing is, also from within. True: writes
	 * that were given up there may take effect yet. */
	void (*first)(void *owner);
	bool (*moved)(void *owner);
	/* The main lane has ended, or is given up: lanes_drop_main(), from within. */
	void (*main_ended)(void *owner, const struct conn_end *end);
	/* The next one has: lanes_drop_next(), from within. */
	void (*next_ended)(void *owner, const struct conn_end *end);
	/* One that was left is gone. */
	void (*left_ended)(void *owner, uint32_t number, const struct conn_end *end);

	void (*drained)(void *owner); /* the main lane takes more again */
	void (*frame)(void *owner, const struct wire_frame *frame); /* no notification */
	struct handover_ops stream;                                 /* notifications */
};

struct lanes {
	const struct lanes_ops *ops;
	void *owner;
	struct stats *stats;
	struct places *places;

	TAILQ_HEAD(, lane) all;
	struct lane *main;   /* the one that counts; or NULL */
	struct lane *next;   /* the one that is being made; or NULL */
	struct lane *former; /* the one that was left last; or NULL: it has ended */
	enum lanes_stage stage;
	uint32_t last_number;
	bool stopped;

	uint32_t ping;        /* that LANES_PROVING or CATCHING waits for */
	struct event *grace;  /* the time to answer it is over */
	struct event *linger; /* the former one's time is over; while pending, it stays */

	struct handover handover; /* the stream */
	struct event *late;       /* LATE_STEP_MS are over */
	unsigned late_steps;      /* since a lane became the main one */
};

void lanes_init(struct lanes *s, struct event_base *base, struct places *places, uint64_t seed,
		const struct lanes_ops *ops, void *owner, struct stats *stats);
void lanes_fini(struct lanes *s); /* after lanes_stop() */

/* Makes the next lane, to the present place; there is none. token: path names one. */
void lanes_connect(struct lanes *s, const char *path, bool token);
void lanes_drop_next(struct lanes *s); /* or nothing, if there is none */
/* The main lane is gone, and dropped. A next one goes on to be made. */
void lanes_drop_main(struct lanes *s);
/* There is no main lane any more, and the next one is LANES_CATCHING: it takes over at once. */
void lanes_take_over(struct lanes *s);

/* Does it lead to where lanes are not made for any more? */
bool lanes_is_outdated(const struct lanes *s, const struct lane *l);
/* Have so many been left that the next one has to wait? */
bool lanes_are_many(const struct lanes *s);
/* Nothing is in flight any more on this one, which was left. */
void lanes_idle(struct lanes *s, uint32_t number);
/* The times have changed: for the present place and for those that lanes lead to. */
void lanes_set_times(struct lanes *s, const struct conn_way *way);
void lanes_check(struct lanes *s); /* are they still there? See conn_check() */

/* Sends close frames and drops the next one. Of how the others end nothing is told. */
void lanes_stop(struct lanes *s);
bool lanes_are_gone(const struct lanes *s);
