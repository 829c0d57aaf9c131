/* libcurl names descriptors in on_watch() and times in on_timeout_wish(). Both end in drive(),
 * where finished transfers are collected. */
#include "transport/curl_loop.h"

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"

struct curl_loop {
	struct event_base *base;
	CURLM *curl;
	struct event *timer; /* libcurl's */
	curl_loop_done *done;
	void *owner;
	unsigned inside; /* depth of calls of drive() */
	bool freed;      /* by its owner, while inside */
};

/* ---- libcurl's memory ---- */

static void wiping_free(void *p)
{
	mem_wipe(p, malloc_usable_size(p));
	free(p);
}

static void *wiping_realloc(void *p, size_t n)
{
	size_t had = malloc_usable_size(p);
	void *moved = malloc(n);

	if (moved && p) {
		memcpy(moved, p, had < n ? had : n);
		wiping_free(p);
	}
	return moved;
}

/* ---- what libcurl asks for ---- */

static void destroy(struct curl_loop *m)
{
	if (m->curl)
		curl_multi_cleanup(m->curl);
	if (m->timer)
		event_free(m->timer);
	free(m);
	curl_global_cleanup();
}

static void collect(struct curl_loop *m)
{
	CURLMsg *message;
	int left;

	while (!m->freed && (message = curl_multi_info_read(m->curl, &left))) {
		if (message->msg == CURLMSG_DONE)
			m->done(m->owner, message->easy_handle, message->data.result);
	}
}

static void drive(struct curl_loop *m, curl_socket_t fd, int what)
{
	int running;

	m->inside++;
	curl_multi_socket_action(m->curl, fd, what, &running);
	collect(m);
	if (--m->inside == 0 && m->freed)
		destroy(m);
}

static void on_ready(evutil_socket_t fd, short what, void *user)
{
	drive(user, fd,
	      ((what & EV_READ) ? CURL_CSELECT_IN : 0) |
		      ((what & EV_WRITE) ? CURL_CSELECT_OUT : 0));
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
	(void)fd, (void)what;
	drive(user, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout_wish(CURLM *curl, long ms, void *user)
{
	struct curl_loop *m = user;

	(void)curl;
	if (ms < 0)
		event_del(m->timer);
	else
		timer_start(m->timer, ms);
	return 0;
}

/* libcurl keeps the descriptor's event for us. */
static int on_watch(CURL *easy, curl_socket_t fd, int what, void *user, void *remembered)
{
	struct curl_loop *m = user;
	struct event *e = remembered;
	short wanted = (short)(((what & CURL_POLL_IN) ? EV_READ : 0) |
			       ((what & CURL_POLL_OUT) ? EV_WRITE : 0));

	(void)easy;
	if (e)
		event_free(e);
	e = what == CURL_POLL_REMOVE
		    ? NULL
		    : watch_new(m->base, fd, (short)(wanted | EV_PERSIST), on_ready, m);
	curl_multi_assign(m->curl, fd, e);
	if (e && watch_start(e) < 0)
		log_debug("libcurl's socket can't be watched: its request will time out");
	return 0;
}

/* ---- public functions ---- */

struct curl_loop *curl_loop_new(struct event_base *base, curl_loop_done *done, void *owner)
{
	struct curl_loop *m = mem_zalloc(sizeof(*m));

	/* Counts as inside: destroy() takes it back. */
	curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc, strdup,
			     calloc);
	*m = (struct curl_loop){.base = base, .done = done, .owner = owner};
	m->curl = curl_multi_init();
	m->timer = timer_new(base, on_timer, m);
	if (!m->curl) {
		destroy(m);
		return NULL;
	}
	curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, on_watch);
	curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
	curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, on_timeout_wish);
	curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
	return m;
}

void curl_loop_free(struct curl_loop *m)
{
	m->freed = true;
	if (!m->inside)
		destroy(m);
}

int curl_loop_add(struct curl_loop *m, CURL *easy)
{
	return curl_multi_add_handle(m->curl, easy) == CURLM_OK ? 0 : -ENOMEM;
}

void curl_loop_remove(struct curl_loop *m, CURL *easy)
{
	curl_multi_remove_handle(m->curl, easy);
}
