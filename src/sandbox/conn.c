#include "conn.h"

#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "base/timer.h"

enum {
	IDLE_S = 60,         /* a connection that asks for nothing */
	IN_MAX = 128 * 1024, /* kept of what can't be read yet */
	LINGER_MS = 2000,
};

static void stop_reading(struct conn *c)
{
	bufferevent_disable(c->bev, EV_READ);
}

void conn_drop(struct conn *c)
{
	if (c->state == CONN_DEAD)
		return;
	c->state = CONN_DEAD;
	bufferevent_disable(c->bev, EV_READ | EV_WRITE);
	timer_start(c->end, 0);
}

/* All is sent: says so, and waits for the other's end, lest what it has not read yet be lost. */
static void linger(struct conn *c)
{
	SSL *ssl = bufferevent_openssl_get_ssl(c->bev);

	c->state = CONN_LINGERING;
	if (ssl)
		SSL_shutdown(ssl);
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	timer_start(c->end, LINGER_MS);
	bufferevent_enable(c->bev, EV_READ);
}

void conn_finish(struct conn *c)
{
	if (c->state >= CONN_FLUSHING)
		return;
	c->state = CONN_FLUSHING;
	stop_reading(c);
	bufferevent_setwatermark(c->bev, EV_WRITE, 0, 0);
	timer_start(c->end, LINGER_MS);
	if (conn_unsent(c) == 0)
		linger(c);
}

void conn_send(struct conn *c, struct span bytes)
{
	if (c->state < CONN_FLUSHING && bufferevent_write(c->bev, bytes.p, bytes.n) < 0)
		conn_drop(c);
}

size_t conn_unsent(const struct conn *c)
{
	return evbuffer_get_length(bufferevent_get_output(c->bev));
}

void conn_pause(struct conn *c, bool pause)
{
	if (c->state >= CONN_FLUSHING)
		return;
	if (pause)
		stop_reading(c);
	else
		bufferevent_enable(c->bev, EV_READ);
}

/* --- input */

/* What has come and was not read yet, as far as it is in one piece. */
static struct span input(struct conn *c)
{
	struct evbuffer_iovec piece = {0};

	evbuffer_peek(bufferevent_get_input(c->bev), -1, NULL, &piece, 1);
	return (struct span){piece.iov_base, piece.iov_len};
}

static void read_http(struct conn *c, struct span data, size_t *taken)
{
	if (!http_read(&c->http, data, taken))
		rest_refuse(c, 400);
}

/* As long as there is something and somebody takes it: whoever stops taking has paused, or has
 * ended the connection. */
static void read_on(struct conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t taken = 1;

	while (taken && c->state < CONN_FLUSHING && evbuffer_get_length(in)) {
		struct span data = input(c);
		taken = 0;
		if (c->state == CONN_WEBSOCKET)
			taken = ws_receive(&c->ws, data);
		else
			read_http(c, data, &taken);
		evbuffer_drain(in, taken);
	}
	if (c->state >= CONN_FLUSHING)
		evbuffer_drain(in, evbuffer_get_length(in));
}

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	read_on(arg);
}

static void on_write(struct bufferevent *bev, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (c->state == CONN_FLUSHING && conn_unsent(c) == 0) {
		linger(c);
	} else if (c->state == CONN_WEBSOCKET) {
		ws_writable(&c->ws);
		read_on(c);
	}
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	if (!(what & BEV_EVENT_CONNECTED))
		conn_drop(arg);
}

/* --- requests */

static void begin_websocket(struct conn *c)
{
	int refusal = ws_open(&c->ws, c, &c->http);

	if (refusal) {
		rest_refuse(c, refusal);
		return;
	}
	c->state = CONN_WEBSOCKET;
	bufferevent_set_timeouts(c->bev, NULL, NULL);
	bufferevent_setwatermark(c->bev, EV_WRITE, WS_OUT_LOW, 0);
}

static void on_head(void *owner)
{
	struct conn *c = owner;

	if (!c->http.parser.upgrade)
		rest_begin(&c->rest, c);
}

static void on_body(void *owner, struct span piece)
{
	struct conn *c = owner;

	rest_body(&c->rest, piece);
}

static void on_end(void *owner)
{
	struct conn *c = owner;

	if (c->state != CONN_HTTP)
		return;
	if (c->http.parser.upgrade)
		begin_websocket(c);
	else
		rest_body_end(&c->rest);
}

void conn_next_request(struct conn *c)
{
	http_resume(&c->http);
	/* In the next turn: this may be called from within the reading of the request. */
	if (evbuffer_get_length(bufferevent_get_input(c->bev)))
		bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

/* --- a connection's life */

static void on_end_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	conn_free(arg);
}

static struct bufferevent *open_bufferevent(struct event_base *base, int fd, SSL_CTX *ctx)
{
	SSL *ssl = ctx ? SSL_new(ctx) : NULL;

	if (!ctx)
		return bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	return ssl ? bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
						    BEV_OPT_CLOSE_ON_FREE)
		   : NULL;
}

void conn_new(struct conn_list *list, struct service *sv, struct event_base *base, int fd,
	      SSL_CTX *ctx)
{
	static const struct http_ops OPS = {on_head, on_body, on_end};
	static const struct timeval IDLE = {.tv_sec = IDLE_S};
	struct bufferevent *bev = open_bufferevent(base, fd, ctx);

	if (!bev)
		mem_refused(sizeof(struct conn));
	struct conn *c = mem_zalloc(sizeof(*c));
	c->list = list;
	c->service = sv;
	c->base = base;
	c->bev = bev;
	c->end = timer_new(base, on_end_timer, c);
	c->next = list->first;
	if (c->next)
		c->next->prev = c;
	list->first = c;
	http_init(&c->http, &OPS, c);
	bufferevent_setcb(bev, on_read, on_write, on_event, c);
	bufferevent_set_timeouts(bev, &IDLE, &IDLE);
	bufferevent_setwatermark(bev, EV_READ, 0, IN_MAX);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

void conn_free(struct conn *c)
{
	if (c->prev)
		c->prev->next = c->next;
	else
		c->list->first = c->next;
	if (c->next)
		c->next->prev = c->prev;
	ws_close(&c->ws);
	rest_end(&c->rest);
	http_fini(&c->http);
	event_free(c->end);
	bufferevent_free(c->bev);
	free(c);
}
