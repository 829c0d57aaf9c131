#include "ws.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <strings.h>

#include "base/clock.h"
#include "base/timer.h"
#include "conn.h"

enum {
	OUT_SOFT = 1024 * 1024, /* untaken output from which requests are not read further */
	OUT_HARD = 32 * 1024 *
		   1024, /* untaken output from which a notification drops the connection */
};

struct held {
	int64_t until_ms;
	size_t n;
};

/* --- output */

static size_t unsent(const struct ws *ws)
{
	return conn_unsent(ws->conn) + buf_len(&ws->out);
}

static void schedule_release(struct ws *ws, int64_t until_ms)
{
	timer_start(ws->release, until_ms - clock_mono_ms());
}

static void on_release(evutil_socket_t fd, short what, void *arg)
{
	struct ws *ws = arg;
	int64_t now = clock_mono_ms();
	struct held held;

	(void)fd;
	(void)what;
	while (buf_len(&ws->held)) {
		memcpy(&held, buf_span(&ws->held).p, sizeof(held));
		if (held.until_ms > now) {
			schedule_release(ws, held.until_ms);
			break;
		}
		conn_send(ws->conn, (struct span){buf_span(&ws->out).p, held.n});
		buf_take(&ws->out, held.n);
		buf_take(&ws->held, sizeof(held));
	}
	if (!buf_len(&ws->out))
		buf_release(&ws->out);
}

static void send_text(struct ws *ws, struct span text)
{
	long delay = ws->service->options->delay_ms;
	char head[WS_HEAD_MAX];
	size_t n = ws_head(head, WS_OPCODE_TEXT, text.n);

	if (delay == 0) {
		conn_send(ws->conn, (struct span){head, n});
		conn_send(ws->conn, text);
		return;
	}
	struct held held = {clock_mono_ms() + delay, n + text.n};
	buf_add(&ws->out, head, n);
	buf_add(&ws->out, text.p, text.n);
	if (!buf_len(&ws->held))
		schedule_release(ws, held.until_ms);
	buf_add(&ws->held, &held, sizeof(held));
}

static void notify(struct subscriber *s, struct span text)
{
	struct ws *ws = (struct ws *)s;

	if (unsent(ws) + text.n > OUT_HARD)
		conn_drop(ws->conn);
	else
		send_text(ws, text);
}

/* Reading stops above OUT_SOFT bytes of output and resumes below half of that. */
static void control_reading(struct ws *ws)
{
	size_t n = unsent(ws);
	bool pause = ws->paused ? n > WS_OUT_LOW : n > OUT_SOFT;

	if (pause != ws->paused)
		conn_pause(ws->conn, pause);
	ws->paused = pause;
}

void ws_writable(struct ws *ws)
{
	if (!ws->conn)
		return;
	control_reading(ws);
	ws_receive(ws, (struct span){0});
}

static void close_with(struct ws *ws, int code, struct span reason)
{
	struct buf out = {0};

	ws_add_close(&out, code, reason);
	conn_send(ws->conn, buf_span(&out));
	buf_release(&out);
	conn_finish(ws->conn);
}

static void send_pong(struct ws *ws, struct span payload)
{
	struct buf out = {0};

	ws_add_pong(&out, payload);
	conn_send(ws->conn, buf_span(&out));
	buf_release(&out);
}

/* --- input */

static void answer(struct ws *ws, const struct command *c, const struct outcome *o)
{
	struct buf text = {0};

	buf_addf(&text, "{\"code\":%d,", o->code);
	buf_add(&text, buf_span(&o->body).p, buf_len(&o->body));
	if (c->id.n) {
		buf_addf(&text, ",\"messageId\":");
		buf_add(&text, c->id.p, c->id.n);
	}
	buf_addf(&text, "}");
	send_text(ws, buf_span(&text));
	buf_release(&text);
}

static void serve(struct ws *ws, struct span text)
{
	struct outcome o = {0};
	struct command c;
	const char *why;

	if (command_read(&c, text, &why) < 0)
		ops_fail(&o, 400, why);
	else
		service_run(ws->service, ws->key,
			    ws->grant && ws->grant->has_access ? &ws->grant->access : NULL, &c, &o);
	if (o.changed)
		service_publish(ws->service, &c, true);
	answer(ws, &c, &o);
	if (o.changed)
		service_publish(ws->service, &c, false);
	buf_release(&o.body);
	command_fini(&c);
}

/* A binary message may hold a request as well. */
static void take(struct ws *ws, enum ws_event event, struct span payload, int code)
{
	switch (event) {
	case WS_TEXT:
	case WS_BINARY:
		serve(ws, payload);
		break;
	case WS_TOO_LONG:
		close_with(ws, WS_MESSAGE_TOO_BIG, SPAN("Message too big"));
		break;
	case WS_PING:
		send_pong(ws, payload);
		break;
	case WS_CLOSE:
		close_with(ws, code, payload);
		break;
	case WS_FAULT:
		close_with(ws, WS_PROTOCOL_ERROR, (struct span){0});
		break;
	case WS_PONG:
	case WS_NEED_MORE:
		break;
	}
}

/* What the reader has taken and not handed out waits there while the connection is paused. */
size_t ws_receive(struct ws *ws, struct span data)
{
	size_t n = data.n;
	enum ws_event event = WS_PONG;

	while (event != WS_NEED_MORE && !ws->paused && ws->conn->state == CONN_WEBSOCKET) {
		struct span payload = {0};
		int code = 0;
		event = ws_next(ws->reader, &data, &payload, &code);
		take(ws, event, payload, code);
		control_reading(ws);
	}
	return n - data.n;
}

/* --- coming and going */

/* Who asks for the upgrade: the key, and the grant if it is by a token. NULL: *refusal is the HTTP
 * status. */
static struct api_key *identify(struct service *sv, const struct http *http, struct grant **grant,
				int *refusal)
{
	struct buf text = {0};
	struct api_key *key;

	*grant = NULL;
	if (http_parameter(http, SPAN("token"), &text)) {
		key = service_token(sv, buf_span(&text), grant);
		*refusal = 403;
	} else {
		http_parameter(http, SPAN("apiKey"), &text);
		key = service_key(sv, buf_span(&text));
		*refusal = 401;
	}
	buf_release(&text);
	return key;
}

static bool header_is(const struct http *http, enum http_header header, struct span value)
{
	struct span is = buf_span(&http->values[header]);

	return is.n == value.n && strncasecmp(is.p, value.p, value.n) == 0;
}

static void send_101(struct ws *ws, struct span key)
{
	static const char GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	unsigned char digest[SHA_DIGEST_LENGTH], text[32];
	struct buf out = {0};

	buf_add(&out, key.p, key.n);
	buf_addf(&out, "%s", GUID);
	SHA1((const unsigned char *)buf_span(&out).p, buf_len(&out), digest);
	EVP_EncodeBlock(text, digest, sizeof(digest));
	buf_take(&out, buf_len(&out));
	buf_addf(&out,
		 "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
		 "connection: upgrade\r\nsec-websocket-accept: %s\r\n\r\n",
		 text);
	conn_send(ws->conn, buf_span(&out));
	buf_release(&out);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
	struct ws *ws = arg;

	(void)fd;
	(void)what;
	close_with(ws, WS_POLICY, SPAN("Token expired"));
}

static void join(struct ws *ws)
{
	int64_t left = ws->grant->expires_ms - clock_wall_ms();

	ws->subscriber = (struct subscriber){.grant = ws->grant, .notify = notify};
	service_join(ws->service, &ws->subscriber);
	ws->expiry = timer_new(ws->conn->base, on_expiry, ws);
	timer_start(ws->expiry, left > 0 ? left : 0);
}

int ws_open(struct ws *ws, struct conn *conn, const struct http *http)
{
	struct span key = buf_span(&http->values[HEADER_WS_KEY]);
	struct grant *grant;
	int refusal;

	if (!span_equal(http_path(http), SPAN("/ws")))
		return 404;
	if (http->parser.method != HTTP_GET ||
	    !header_is(http, HEADER_UPGRADE, SPAN("websocket")) ||
	    !header_is(http, HEADER_WS_VERSION, SPAN("13")) || !key.n)
		return 400;
	struct api_key *who = identify(conn->service, http, &grant, &refusal);
	if (!who)
		return refusal;
	*ws = (struct ws){.conn = conn, .service = conn->service, .key = who, .grant = grant};
	ws->reader = ws_reader_new((size_t)ws->service->options->max_message);
	ws->release = timer_new(conn->base, on_release, ws);
	send_101(ws, key);
	if (grant)
		join(ws);
	return 0;
}

void ws_close(struct ws *ws)
{
	if (!ws->conn)
		return;
	event_free(ws->release);
	if (ws->expiry)
		event_free(ws->expiry);
	if (ws->grant)
		service_leave(ws->service, &ws->subscriber);
	grant_free(ws->grant);
	ws_reader_free(ws->reader);
	buf_release(&ws->out);
	buf_release(&ws->held);
	*ws = (struct ws){0};
}
