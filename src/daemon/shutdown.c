#include "daemon/shutdown.h"

#include <stdlib.h>
#include <unistd.h>

#include "access/token_minter.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "cache/cache.h"
#include "clients/client.h"
#include "clients/listener.h"
#include "clients/socketpath.h"
#include "daemon/learned_pace.h"
#include "daemon/tcp_doors.h"
#include "requests/router.h"
#include "service/notify.h"
#include "subscriptions/subscriptions.h"
#include "upstream/upstream.h"

enum {
	DRAIN_MS = 5000,
	REFUSE_MS = 1000,
	READ_MS = 700, /* of these, for clients to read their answers before their input ends */
	FAREWELL_MS = 1000,
	STEP_MS = 10,
};

static void enter(struct shutdown *s, enum shutdown_phase phase, int64_t ms)
{
	s->phase = phase;
	s->until = clock_mono_ms() + ms;
}

/* True when the phase is over. */
static bool refuse(struct shutdown *s)
{
	struct wiring *w = s->rooms;
	int64_t left = s->until - clock_mono_ms();

	clients_end_input(w->clients, left <= REFUSE_MS - READ_MS);
	return left <= 0 || clients_flush_all(w->clients);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
	struct shutdown *s = arg;
	struct wiring *w = s->rooms;
	bool late = clock_mono_ms() >= s->until;

	(void)fd;
	(void)what;
	if (s->phase == SHUTDOWN_DRAIN && (late || router_is_drained(w->router))) {
		router_abandon(w->router);
		enter(s, SHUTDOWN_REFUSE, REFUSE_MS);
	} else if (s->phase == SHUTDOWN_REFUSE && refuse(s)) {
		subscriptions_end(w->subscriptions);
		upstream_stop(w->upstream);
		clients_farewell(w->clients);
		enter(s, SHUTDOWN_FAREWELL, FAREWELL_MS);
	} else if (s->phase == SHUTDOWN_FAREWELL) {
		bool flushed = clients_flush_all(w->clients);
		if (late || (flushed && upstream_closed(w->upstream)))
			event_base_loopbreak(w->base);
	}
}

static void drain(struct shutdown *s)
{
	struct wiring *w = s->rooms;

	enter(s, SHUTDOWN_DRAIN, DRAIN_MS);
	clients_will_end(w->clients);
	learned_pace_keep(w->router);
	subscriptions_stop(w->subscriptions);
	cache_stop(w->cache);
	router_stop(w->router);
	timer_start(s->step, STEP_MS);
}

void shutdown_init(struct shutdown *s, struct wiring *rooms)
{
	*s = (struct shutdown){.rooms = rooms};
	s->step = watch_new(rooms->base, -1, EV_PERSIST, on_step, s);
}

void shutdown_fini(struct shutdown *s)
{
	restart_ask_free(s->question);
	s->question = NULL;
	if (s->step)
		event_free(s->step);
	s->step = NULL;
}

void shutdown_close_sockets(struct shutdown *s)
{
	struct socketpath path;

	if (s->own_socket && socketpath_inherit(s->own_socket, &path))
		socketpath_remove(&path);
	while (s->n_sockets)
		close(s->sockets[--s->n_sockets].fd);
}

/* Clients that have connected to a socket of ours are accepted first: their requests are refused. A
 * socket of the service manager's keeps such clients for the next daemon. */
static void stop_listening(struct wiring *w)
{
	if (w->listener && !listener_is_adopted(w->listener))
		listener_retire(w->listener);
	else
		listener_free(w->listener);
	w->listener = NULL;
}

void shutdown_begin(struct shutdown *s, int signal_number)
{
	struct wiring *w = s->rooms;

	if (shutdown_is_restart(s)) {
		log_notice("signal %d: stopping, without a restart", signal_number);
		notify_stopping(w->notify);
		shutdown_close_sockets(s);
		return;
	}
	if (s->phase != SHUTDOWN_NOT) {
		log_notice("signal %d again: stopping at once", signal_number);
		event_base_loopbreak(w->base);
		return;
	}
	log_notice("signal %d: stopping", signal_number);
	restart_ask_free(s->question);
	s->question = NULL;
	notify_stopping(w->notify);
	stop_listening(w);
	tcp_doors_free(w->tcp_doors);
	w->tcp_doors = NULL;
	drain(s);
}

/* ---- another program takes our place ---- */

static void on_answer(void *owner, bool ok, const char *why)
{
	struct shutdown *s = owner;
	struct wiring *w = s->rooms;

	s->question = NULL;
	if (!ok) {
		log_error("SIGUSR2: no restart: %s", why);
		return;
	}
	log_notice("SIGUSR2: restarting");
	notify_reloading(w->notify);
	s->sockets[s->n_sockets++] =
		(struct restart_socket){listener_hand_over(w->listener, &s->own_socket), "hpkvd"};
	w->listener = NULL;
	s->n_sockets += tcp_doors_hand_over(w->tcp_doors, s->sockets + s->n_sockets,
					    RESTART_SOCKETS_MAX - s->n_sockets);
	tcp_doors_free(w->tcp_doors);
	w->tcp_doors = NULL;
	drain(s);
}

void shutdown_restart(struct shutdown *s, const struct restart_program *program)
{
	if (s->phase != SHUTDOWN_NOT || s->question)
		return;
	log_notice("SIGUSR2: asking the program for the restart whether it would start");
	s->question = restart_ask(s->rooms->base, program, on_answer, s);
}

bool shutdown_is_restart(const struct shutdown *s)
{
	return s->n_sockets > 0;
}
