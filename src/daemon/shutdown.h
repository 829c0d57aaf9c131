/* shutdown.h - the orderly end, in three phases.
 *
 * Drain: no client is accepted and no request is sent any more; requests in flight have five
 * seconds to be answered. Refuse: clients can send nothing more, each from when it has read its
 * answers; requests that they have sent before are read and refused. Farewell: clients with
 * subscriptions get a last line, all take their last bytes, and the service gets a close frame. The
 * last two have a second each. Then the loop is left.
 *
 * So a client knows of each request whether it was read: it was answered, or it could not be sent.
 *
 * A restart (restart.h) begins with the question whether the other program would start. Then it is
 * the same end, but the listening sockets stay open: clients wait there until that program accepts
 * them. */
#pragma once

#include <event2/event.h>
#include <stdint.h>

#include "daemon/restart.h"
#include "daemon/wiring.h"

enum shutdown_phase {
	SHUTDOWN_NOT,
	SHUTDOWN_DRAIN,
	SHUTDOWN_REFUSE,
	SHUTDOWN_FAREWELL,
	SHUTDOWN_PHASE_N
};

struct shutdown {
	struct wiring *rooms;
	struct event *step; /* runs only during the shutdown */
	enum shutdown_phase phase;
	int64_t until;                     /* the phase ends then at the latest */
	struct restart_question *question; /* NULL: none is open */
	/* Of a restart; for restart_now(). */
	struct restart_socket sockets[RESTART_SOCKETS_MAX];
	size_t n_sockets;
	char *own_socket; /* the text of socketpath_hand_over(); NULL: it was adopted. The daemon's
			   */
};

/* rooms->base is there. */
void shutdown_init(struct shutdown *s, struct wiring *rooms);
void shutdown_fini(struct shutdown *s); /* also of a zeroed one */

/* This signal was received. A second one leaves the loop at once. */
void shutdown_begin(struct shutdown *s, int signal_number);

/* SIGUSR2 was received. Does nothing during a shutdown. The program outlives the daemon. */
void shutdown_restart(struct shutdown *s, const struct restart_program *program);
/* The loop was left for a restart. */
bool shutdown_is_restart(const struct shutdown *s);
/* There is no restart after all: closes the sockets, and removes our own. */
void shutdown_close_sockets(struct shutdown *s);
