#include "service/metrics_page.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "service/metrics_text.h"
#include "clients/socketpath.h"
#include "base/timer.h"

enum {
	BACKLOG = 64,
	HEADERS_MAX = 8192,
	BODY_MAX = 1024, /* of a request; GET has none */
	SWEEP_MS = 1000,
	SWEEP_FULL_MS = 50, /* while all places are taken */
};

/* An accepted connection. The reference to io keeps the number of its descriptor from being used
 * again meanwhile. */
struct visit {
	struct bufferevent *io; /* NULL: the place is free */
	int64_t until;
};

struct metrics_page {
	const struct metrics_page_ops *ops;
	void *owner;
	struct socketpath path;
	char *address; /* owned; NULL: it has a path */
	uint16_t port;
	struct evhttp *http;
	struct evconnlistener *listener; /* http owns it */
	struct visit visits[METRICS_PAGE_CONNECTIONS_MAX];
	unsigned n;
	struct event *knock; /* a client connects; armed while the sweep does not run */
	struct event *sweep; /* runs from a knock until no connection is left */
	bool answered;       /* a connection was accepted since the knock */
	bool told;           /* the failure to accept was logged */
};

/* ---- connections ---- */

static void sweep_soon(struct metrics_page *m)
{
	if (!event_pending(m->sweep, EV_TIMEOUT, NULL))
		timer_start(m->sweep,
			    m->n == METRICS_PAGE_CONNECTIONS_MAX ? SWEEP_FULL_MS : SWEEP_MS);
}

/* The listener's callback for errors gets evhttp's data and none of ours. So that callback only
 * pauses the listener, and each first knock starts the timer that ends all pauses. The knock is
 * armed after the listener, so its event comes first. */
static void on_knock(evutil_socket_t fd, short what, void *arg)
{
	struct metrics_page *m = arg;

	(void)fd;
	(void)what;
	m->answered = false;
	sweep_soon(m);
}

/* False: the kernel has no room to watch the socket. The sweep goes on, and tries again. */
static bool listen_on(struct metrics_page *m)
{
	return evconnlistener_enable(m->listener) == 0 && watch_start(m->knock) == 0;
}

static void visit_end(struct metrics_page *m, struct visit *v)
{
	bufferevent_decref(v->io);
	v->io = NULL;
	m->n--;
	evconnlistener_enable(m->listener);
}

/* evhttp does not tell when it drops a connection without a request, but such a connection has no
 * callbacks any more. */
static bool is_dropped(const struct visit *v)
{
	bufferevent_event_cb callback;

	bufferevent_getcb(v->io, NULL, NULL, &callback, NULL);
	return !callback;
}

/* Ends connections that evhttp has dropped, and shuts down those whose time is up, busy or not:
 * evhttp finds them disconnected. */
static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct metrics_page *m = arg;
	int64_t now = clock_mono_ms();

	(void)fd;
	(void)what;
	for (struct visit *v = m->visits; v < m->visits + METRICS_PAGE_CONNECTIONS_MAX; v++) {
		if (!v->io)
			continue;
		if (is_dropped(v))
			visit_end(m, v);
		else if (now >= v->until)
			shutdown(bufferevent_getfd(v->io), SHUT_RDWR);
	}
	if (!m->answered && !m->told) {
		m->told = true;
		log_warning("metrics: no connection can be accepted at present: is there no "
			    "descriptor or memory left?");
	}
	if (m->n < METRICS_PAGE_CONNECTIONS_MAX)
		evconnlistener_enable(m->listener);
	if (m->n || !listen_on(m))
		sweep_soon(m);
}

/* Makes the bufferevent of an accepted connection. */
static struct bufferevent *on_connection(struct event_base *base, void *arg)
{
	struct metrics_page *m = arg;
	struct visit *v = m->visits, *end = v + METRICS_PAGE_CONNECTIONS_MAX;
	struct bufferevent *io = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);

	m->answered = true;
	while (v < end && v->io)
		v++;
	if (v == end || !io) /* with NULL evhttp makes one, and has its own time limits */
		return io;
	v->io = io;
	v->until = clock_mono_ms() + METRICS_PAGE_CONNECTION_MS;
	bufferevent_incref(io);
	if (++m->n == METRICS_PAGE_CONNECTIONS_MAX) {
		evconnlistener_disable(m->listener);
		event_del(m->sweep);
	}
	sweep_soon(m);
	return io;
}

static void on_closed(struct evhttp_connection *connection, void *arg)
{
	struct metrics_page *m = arg;
	const struct bufferevent *io = evhttp_connection_get_bufferevent(connection);

	for (struct visit *v = m->visits; v < m->visits + METRICS_PAGE_CONNECTIONS_MAX; v++) {
		if (v->io == io)
			visit_end(m, v);
	}
}

/* No descriptor is left, say. The next sweep enables the listener again. */
static void on_accept_error(struct evconnlistener *listener, void *evhttps)
{
	(void)evhttps;
	evconnlistener_disable(listener);
}

/* ---- requests ---- */

static void answer(struct evhttp_request *request, int code, const char *reason, const char *type,
		   struct span text)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	bool head = evhttp_request_get_command(request) == EVHTTP_REQ_HEAD;
	struct evbuffer *body = evbuffer_new();
	char length[24];

	snprintf(length, sizeof(length), "%zu", text.n);
	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Content-Length", length);
	evhttp_add_header(headers, "Connection", "close");
	if (!head)
		evbuffer_add(body, text.p, text.n);
	evhttp_send_reply(request, code, reason, body);
	evbuffer_free(body);
}

static void on_request(struct evhttp_request *request, void *arg)
{
	static const char plain[] = "text/plain; charset=utf-8";
	struct metrics_page *m = arg;
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
	enum evhttp_cmd_type method = evhttp_request_get_command(request);
	struct buf page = {0};

	evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_closed, m);
	if (!path || strcmp(path, "/metrics") != 0) {
		answer(request, HTTP_NOTFOUND, "Not Found", plain, SPAN("the page is /metrics\n"));
	} else if (method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD) {
		evhttp_add_header(evhttp_request_get_output_headers(request), "Allow", "GET, HEAD");
		answer(request, HTTP_BADMETHOD, "Method Not Allowed", plain,
		       SPAN("the page can only be read\n"));
	} else {
		m->ops->page(m->owner, &page);
		answer(request, HTTP_OK, "OK", METRICS_TEXT_CONTENT_TYPE, buf_span(&page));
		buf_release(&page);
	}
}

/* ---- the socket ---- */

static socklen_t make_address(const char *text, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	*out = (struct sockaddr_storage){0};
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof(*v6);
	}
	return 0;
}

static int open_port(const struct metrics_page_settings *s)
{
	static const int on = 1;
	struct sockaddr_storage at;
	socklen_t n = make_address(s->address, s->port, &at);
	int fd = n ? socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
	int err = !n ? -EINVAL : fd < 0 ? -errno : 0;

	/* Connections of an earlier daemon may still be in TIME_WAIT. */
	if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
			bind(fd, (struct sockaddr *)&at, n) < 0 || listen(fd, BACKLOG) < 0))
		err = -errno;
	if (err < 0 && fd >= 0)
		close(fd);
	if (err == -EADDRINUSE)
		log_error("%s port %u: another program is listening there: stop it, or choose "
			  "another [metrics] listen",
			  s->address, s->port);
	else if (err < 0)
		log_error("%s port %u: can't listen there: %s", s->address, s->port,
			  strerror(-err));
	return err < 0 ? err : fd;
}

static int open_place(const struct metrics_page_settings *s, struct socketpath *path)
{
	struct socketpath_settings at = {
		.path = s->path,
		.mode = s->mode,
		.group = s->group,
		.setting = "[metrics] listen",
		.may_wait = s->may_wait,
	};

	return s->path ? socketpath_open(&at, path) : open_port(s);
}

static int serve(struct metrics_page *m, struct event_base *base, int fd)
{
	static const int flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC;

	int err = -ENOMEM;

	m->http = evhttp_new(base);
	m->sweep = timer_new(base, on_sweep, m);
	m->knock = watch_new(base, fd, EV_READ, on_knock, m);
	m->listener = evconnlistener_new(base, NULL, NULL, flags, 0, fd);
	if (!m->listener)
		close(fd);
	else if (!m->http || !evhttp_bind_listener(m->http, m->listener))
		evconnlistener_free(m->listener);
	else
		err = watch_start(m->knock);
	if (err < 0) {
		log_error("the metrics page can't be served: %s", strerror(-err));
		return err;
	}
	evconnlistener_set_error_cb(m->listener, on_accept_error);
	evhttp_set_max_headers_size(m->http, HEADERS_MAX);
	evhttp_set_max_body_size(m->http, BODY_MAX);
	evhttp_set_allowed_methods(m->http, UINT16_MAX); /* on_request() says which */
	evhttp_set_bevcb(m->http, on_connection, m);
	evhttp_set_gencb(m->http, on_request, m);
	return 0;
}

int metrics_page_new(struct event_base *base, const struct metrics_page_settings *settings,
		     const struct metrics_page_ops *ops, void *owner, struct metrics_page **out)
{
	struct socketpath path = {0};
	int fd = open_place(settings, &path);

	if (fd < 0)
		return fd;
	struct metrics_page *m = mem_zalloc(sizeof(*m));
	m->ops = ops;
	m->owner = owner;
	m->path = path;
	m->address = settings->path ? NULL : mem_strdup(settings->address);
	m->port = settings->port;
	int err = serve(m, base, fd);
	if (err < 0) {
		m->listener = NULL; /* was freed above */
		metrics_page_free(m);
		return err;
	}
	if (settings->path)
		log_notice("metrics: %s", settings->path);
	else
		log_notice(strchr(settings->address, ':') ? "metrics: http://[%s]:%u/metrics"
							  : "metrics: http://%s:%u/metrics",
			   settings->address, settings->port);
	*out = m;
	return 0;
}

bool metrics_page_is_at(const struct metrics_page *m, const struct metrics_page_settings *s)
{
	if (s->path)
		return socketpath_is(&m->path, s->path);
	return s->address && m->address && strcmp(s->address, m->address) == 0 &&
	       s->port == m->port;
}

void metrics_page_step_aside(struct metrics_page *m)
{
	socketpath_step_aside(&m->path);
}

void metrics_page_step_back(struct metrics_page *m)
{
	socketpath_step_back(&m->path);
}

int metrics_page_set_access(struct metrics_page *m, const struct metrics_page_settings *s)
{
	return m->path.path ? socketpath_set_access(&m->path, s->mode, s->group) : 0;
}

void metrics_page_free(struct metrics_page *m)
{
	if (!m)
		return;
	socketpath_remove(&m->path);
	/* evhttp_free() frees the rest. */
	for (struct visit *v = m->visits; v < m->visits + METRICS_PAGE_CONNECTIONS_MAX; v++) {
		if (v->io)
			visit_end(m, v);
	}
	event_free(m->knock); /* before its descriptor is closed */
	if (m->http)
		evhttp_free(m->http);
	event_free(m->sweep);
	free(m->address);
	free(m);
}
