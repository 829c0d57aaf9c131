#include "daemon/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/mem.h"
#include "base/orphans.h"
#include "base/timer.h"
#include "base/turn.h"
#include "clients/listener.h"
#include "daemon/descriptors.h"
#include "daemon/reload.h"
#include "daemon/shutdown.h"
#include "daemon/tcp_doors.h"
#include "daemon/warnings.h"
#include "daemon/wiring.h"
#include "service/notify.h"

struct daemon {
	struct wiring rooms;
	struct reload reload;
	struct shutdown shutdown;
	struct restart_program program;
	struct event *sigterm, *sigint, *sighup, *sigusr2; /* NULL: not watched, as the watchdog */
	struct event *watchdog; /* tells the service manager that the loop turns */
};

/* ---- signals ---- */

/* There is nothing yet to put in order. */
static void end_early(int number)
{
	(void)number;
	_exit(EXIT_SUCCESS);
}

void daemon_expect_signals(void)
{
	sigset_t later;

	signal(SIGTERM, end_early);
	signal(SIGINT, end_early);
	orphans_discard();
	sigemptyset(&later);
	sigaddset(&later, SIGHUP);
	sigaddset(&later, SIGUSR2);
	sigprocmask(SIG_BLOCK, &later, NULL);
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
	struct daemon *d = arg;

	(void)what;
	shutdown_begin(&d->shutdown, (int)number);
}

static void on_sighup(evutil_socket_t number, short what, void *arg)
{
	struct daemon *d = arg;

	(void)number;
	(void)what;
	reload_request(&d->reload);
}

static void on_sigusr2(evutil_socket_t number, short what, void *arg)
{
	struct daemon *d = arg;

	(void)number;
	(void)what;
	shutdown_restart(&d->shutdown, &d->program);
}

/* The process that started this one may have blocked them. */
static void unblock_signals(void)
{
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigaddset(&ours, SIGUSR2);
	sigprocmask(SIG_UNBLOCK, &ours, NULL);
}

static bool watch_signal(struct daemon *d, int number, event_callback_fn callback,
			 struct event **event)
{
	*event = watch_new(d->rooms.base, number, EV_SIGNAL | EV_PERSIST, callback, d);
	int err = watch_start(*event);

	if (err < 0)
		log_error("can't watch for signal %d: %s", number, strerror(-err));
	return err == 0;
}

/* A daemon that can't be told to end does not start. */
static bool watch_signals(struct daemon *d)
{
	if (!watch_signal(d, SIGTERM, on_stop_signal, &d->sigterm) ||
	    !watch_signal(d, SIGINT, on_stop_signal, &d->sigint) ||
	    !watch_signal(d, SIGHUP, on_sighup, &d->sighup) ||
	    !watch_signal(d, SIGUSR2, on_sigusr2, &d->sigusr2))
		return false;
	unblock_signals();
	return true;
}

/* No signal interrupts the clean-up. */
static void block_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
}

/* ---- the watchdog ---- */

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	(void)fd;
	(void)what;
	notify_alive(d->rooms.notify);
}

/* The watchdog is about this process alone: a loop that turns is alive, also while the service is
 * away. */
static void start_watchdog(struct daemon *d)
{
	uint64_t us = notify_watchdog_us();

	if (us == 0)
		return;
	d->watchdog = watch_new(d->rooms.base, -1, EV_PERSIST, on_watchdog, d);
	timer_start(d->watchdog, (int64_t)(us / 2000));
}

/* ---- start and end ---- */

/* libevent itself would write to stderr, and wait until that is read. */
static void on_loop_log(int severity, const char *text)
{
	static const enum log_level levels_of[] = {
		[EVENT_LOG_DEBUG] = LOG_LEVEL_DEBUG,
		[EVENT_LOG_MSG] = LOG_LEVEL_INFO,
		[EVENT_LOG_WARN] = LOG_LEVEL_WARNING,
		[EVENT_LOG_ERR] = LOG_LEVEL_ERROR,
	};

	log_at(levels_of[severity & 3], "libevent: %s", text);
}

static int start(struct daemon *d)
{
	struct wiring *w = &d->rooms;

	warnings_of_swap();
	warnings_of_state();
	warnings_of_settings(w->config, NULL);
	w->descriptors_before = descriptors_open();
	if (!wiring_reserve_descriptors(w, w->config->listen.max_clients))
		return -EMFILE;
	event_set_log_callback(on_loop_log);
	w->base = event_base_new();
	if (!w->base) {
		log_error("can't make an event loop: %s", strerror(errno));
		return -ENOMEM;
	}
	shutdown_init(&d->shutdown, w);
	reload_init(&d->reload);
	if (!watch_signals(d))
		return -EINVAL;
	int err = wiring_start(w);
	if (err < 0)
		return err;
	start_watchdog(d);
	warnings_of_socket(listener_path(w->listener), w->config);
	return 0;
}

static void free_event(struct event *e)
{
	if (e)
		event_free(e);
}

/* From wherever start() got to. */
static void finish(struct daemon *d)
{
	struct event_base *base = d->rooms.base;

	block_signals();
	wiring_stop(&d->rooms);
	free_event(d->watchdog);
	free_event(d->sigusr2);
	free_event(d->sighup);
	free_event(d->sigint);
	free_event(d->sigterm);
	reload_fini(&d->reload);
	shutdown_fini(&d->shutdown);
	/* The resolver lets go of the rest within two turns. */
	for (int i = 0; base && i < 2; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	if (base)
		event_base_free(base);
	config_free(d->rooms.config);
}

/* Returns only when that fails. */
static int restart(struct daemon *d)
{
	struct shutdown *s = &d->shutdown;
	int err = restart_now(&d->program, s->own_socket, s->sockets, s->n_sockets);

	log_error("the restart has failed: %s", strerror(-err));
	shutdown_close_sockets(s);
	return err;
}

static void tell_start(const struct wiring *w)
{
	struct buf places = {0};

	buf_addf(&places, "%s", listener_path(w->listener));
	tcp_doors_names(w->tcp_doors, &places);
	log_notice("hpkvd %s listens on %.*s for %s", PACKAGE_VERSION, (int)buf_len(&places),
		   buf_span(&places).p, w->config->upstream.url.text);
	buf_release(&places);
}

int daemon_run(const struct daemon_options *options)
{
	struct daemon *d = mem_zalloc(sizeof(*d));
	struct wiring *w = &d->rooms;

	w->config = options->config;
	d->reload = (struct reload){.rooms = w,
				    .source = options->source,
				    .level_forced = options->level_forced,
				    .level = options->level};
	d->program = options->program;
	int err = start(d);
	if (err == 0) {
		tell_start(&d->rooms);
		notify_ready(w->notify);
		wiring_tell_state(w);
		err = turn_loop(w->base);
		if (err < 0)
			log_error("the event loop has failed: %s", strerror(errno));
		log_notice("stopped");
	}
	finish(d);
	if (err >= 0 && shutdown_is_restart(&d->shutdown))
		err = restart(d);
	free(d->shutdown.own_socket);
	free(d);
	return err < 0 ? 1 : 0;
}
