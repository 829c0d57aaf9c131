#include "daemon/shutdown.h"

#include "access/token_minter.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/timer.h"
#include "clients/client.h"
#include "clients/listener.h"
#include "requests/router.h"
#include "service/notify.h"
#include "subscriptions/subscriptions.h"
#include "upstream/upstream.h"

enum { DRAIN_MS = 5000, REFUSE_MS = 1000, FAREWELL_MS = 1000, STEP_MS = 10 };

static void enter(struct shutdown *s, enum shutdown_phase phase, int64_t ms)
{
	s->phase = phase;
	s->until = clock_mono_ms() + ms;
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
	struct shutdown *s = arg;
	struct wiring *w = s->rooms;
	bool late = clock_mono_ms() >= s->until;

	(void)fd;
	(void)what;
	if (s->phase == SHUTDOWN_DRAIN && (late || router_in_flight(w->router) == 0)) {
		router_abandon(w->router);
		clients_end_input(w->clients);
		enter(s, SHUTDOWN_REFUSE, REFUSE_MS);
	} else if (s->phase == SHUTDOWN_REFUSE && (late || clients_flush_all(w->clients))) {
		subscriptions_end(w->subscriptions);
		upstream_stop(w->upstream);
		enter(s, SHUTDOWN_FAREWELL, FAREWELL_MS);
	} else if (s->phase == SHUTDOWN_FAREWELL) {
		bool flushed = clients_flush_all(w->clients);
		if (late || (flushed && upstream_closed(w->upstream)))
			event_base_loopbreak(w->base);
	}
}

void shutdown_init(struct shutdown *s, struct wiring *rooms)
{
	*s = (struct shutdown){.rooms = rooms};
	s->step = watch_new(rooms->base, -1, EV_PERSIST, on_step, s);
}

void shutdown_fini(struct shutdown *s)
{
	if (s->step)
		event_free(s->step);
}

void shutdown_begin(struct shutdown *s, int signal_number)
{
	struct wiring *w = s->rooms;

	if (s->phase != SHUTDOWN_NOT) {
		log_notice("signal %d again: stopping at once", signal_number);
		event_base_loopbreak(w->base);
		return;
	}
	log_notice("signal %d: stopping", signal_number);
	notify_stopping(w->notify);
	enter(s, SHUTDOWN_DRAIN, DRAIN_MS);
	listener_free(w->listener);
	w->listener = NULL;
	subscriptions_stop(w->subscriptions);
	router_stop(w->router);
	timer_start(s->step, STEP_MS);
}
