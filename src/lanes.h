/* lanes.h - the connections to the service that there are at a time, and how one of them takes the
 * place of another.
 *
 * One lane counts (main): requests go out on it, its notifications are delivered. Another may be
 * made (next). The lanes that it has replaced are left: they stay until their requests are
 * answered, and LINGER_MS at least if they bring notifications. Where there is no main lane, the
 * next one becomes it when it is proven; one without a token, which brings no notifications, as
 * soon as it is open: ops->first(). Else it takes over:
 *
 *     connecting -> proving -> catching -> ops->moved()
 *                        |          |
 *                        |   the main lane answers a ping: it has brought all changes before that
 *                 the next lane answers a ping: it is subscribed for certain
 *
 * From the notifications of all lanes it makes one stream (handover.h), each change once.
 *
 * Owns the lanes, their timers and that stream. Why a lane is made, with what, and what follows
 * when one ends is decided above (upstream.h); nothing is tried again here. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "change.h"
#include "conn.h"
#include "place.h"
#include "handover.h"
#include "span.h"
#include "stats.h"
#include "wire.h"

/* What has become of the lane that is being made. */
enum lanes_stage {
	LANES_NONE,
	LANES_CONNECTING,
	LANES_PROVING,  /* it is open, and was sent a ping */
	LANES_CATCHING, /* ... has answered it; the main one was sent a ping */
	LANES_STAGE_N
};

struct lanes;

struct lane {
	TAILQ_ENTRY(lane) of_left; /* lanes::left, once another has taken its place */
	struct lanes *lanes;
	struct place *place;
	struct conn *conn;
	uint32_t number; /* not used again */
	bool token;      /* opened with one */
	int64_t until;   /* of an old one: it stays so long at least */
	bool waits;      /* ... and until its requests are answered */
	bool closing;
};

TAILQ_HEAD(lane_list, lane);

struct lanes_ops {
	/* There is no main lane, and the next one may be it: lanes_take_first(), from within. */
	void (*first)(void *owner);
	/* The next lane is the main one now. What is on its way on the former stays there. */
	void (*moved)(void *owner);
	/* The main lane has ended, or is given up: lanes_drop_main(), from within. */
	void (*main_ended)(void *owner, const struct conn_end *end);
	/* The next one has: lanes_drop_next(), from within. */
	void (*next_ended)(void *owner, const struct conn_end *end);
	/* One that was left is gone. */
	void (*left_ended)(void *owner, uint32_t number);
	/* There is too much to compare: lanes_drop_next(), from within. */
	void (*too_much)(void *owner);

	unsigned (*in_flight)(void *owner, uint32_t number);
	void (*drained)(void *owner); /* the main lane takes more again */
	void (*frame)(void *owner, const struct wire_frame *frame); /* no notification */
	/* A notification, once for each change. */
	void (*change)(void *owner, const struct wire_frame *frame, const struct change *change);
	/* A change that can't be told in order any more: see handover_ops. */
	void (*straggler)(void *owner, const struct wire_frame *frame, const struct change *change);
};

struct lanes {
	const struct lanes_ops *ops;
	void *owner;
	struct stats *stats;
	struct places *places;

	uint32_t last_number;
	struct lane *main;     /* the one that counts; or NULL */
	struct lane *next;     /* the one that is being made; or NULL */
	struct lane_list left; /* the latest last */
	struct lane *former;   /* of these, the one before main; or NULL: it has ended */
	enum lanes_stage stage;
	bool stopped;

	int close_code; /* how the last lane has ended, as in conn_end */
	bool dropped;

	uint32_t ping;        /* that LANES_PROVING or CATCHING waits for */
	struct event *grace;  /* the time to answer it is over */
	struct event *linger; /* some old lane's time may be over */

	struct handover handover; /* what they bring */
	struct event *late;       /* LATE_STEP_MS are over */
	unsigned late_steps;      /* since a lane became the main one */
};

void lanes_init(struct lanes *s, struct event_base *base, struct places *places, uint64_t seed,
		const struct lanes_ops *ops, void *owner, struct stats *stats);
void lanes_fini(struct lanes *s); /* after lanes_stop() */

/* Makes the next lane, to the present place; there is none. token: path names one. */
void lanes_connect(struct lanes *s, const char *path, bool token);
void lanes_drop_next(struct lanes *s); /* or nothing, if there is none */
bool lanes_next_is_open(const struct lanes *s);
bool lanes_next_is_proven(const struct lanes *s);

/* There was no main lane, or it is gone: the next one is it. Then, once that was told,
 * lanes_settle(): what it has brought so far is believed. */
void lanes_take_first(struct lanes *s);
void lanes_settle(struct lanes *s);
/* The main lane is gone, and dropped. A next one goes on to be made. */
void lanes_drop_main(struct lanes *s);

/* Does it lead to where lanes are not made for any more? */
bool lanes_is_outdated(const struct lanes *s, const struct lane *l);
/* Are there so many that were left that the next one has to wait? */
bool lanes_are_many(const struct lanes *s);
/* Nothing is on its way any more on this one, which may have been left. */
void lanes_idle(struct lanes *s, uint32_t number);
/* What may be held of what the next lane brings; needed before the first lane. */
void lanes_limit(struct lanes *s, const struct handover_limits *limits);
/* The times have changed: for the present place and for those that lanes lead to. */
void lanes_set_times(struct lanes *s, const struct conn_way *way);
void lanes_check(struct lanes *s); /* are they still there? See conn_check() */

/* Sends close frames and drops the next one. Of how the others end nothing is told. */
void lanes_stop(struct lanes *s);
bool lanes_are_gone(const struct lanes *s);
