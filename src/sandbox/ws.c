#include "ws.h"

#include "base/clock.h"
#include "http.h"

enum {
	BATCH = 16 * 1024,      /* fits in a TLS record */
	OUT_SOFT = 1024 * 1024, /* unsent output above which requests are not read */
	OUT_HARD = 32 * 1024 *
		   1024, /* unsent output above which a notification drops the connection */
	FRAME_HEADER_MAX = 10,
};

struct held {
	int64_t until_ms;
	size_t n;
};

/* --- output */

static void add_header(struct buf *out, size_t n)
{
	unsigned char header[FRAME_HEADER_MAX] = {0x80 |
						  0x1}; /* the only frame of a text message */
	unsigned bytes = n < 126 ? 0 : n < 65536 ? 2 : 8;

	header[1] = (unsigned char)(bytes == 0 ? n : bytes == 2 ? 126 : 127);
	for (unsigned i = 0; i < bytes; i++)
		header[2 + i] = (unsigned char)((uint64_t)n >> (8 * (bytes - 1 - i)));
	buf_add(out, header, 2 + bytes);
}

/* The length of the first frame in out. */
static size_t frame_length(struct span out)
{
	const unsigned char *p = (const unsigned char *)out.p;
	unsigned bytes = p[1] == 127 ? 8 : p[1] == 126 ? 2 : 0;
	uint64_t n = bytes ? 0 : p[1];

	for (unsigned i = 0; i < bytes; i++)
		n = n << 8 | p[2 + i];
	return (size_t)n + 2 + bytes;
}

/* How many bytes to write at a time: whole frames, because libwebsockets sends its own PONG between
 * two writes; at least one frame, which may be of any length. */
static size_t batch(struct span out)
{
	size_t n = frame_length(out);

	while (n < out.n) {
		size_t next = frame_length((struct span){out.p + n, out.n - n});
		if (n + next > BATCH)
			break;
		n += next;
	}
	return n;
}

static void release(lws_sorted_usec_list_t *timer);

static void schedule_release(struct ws *ws, int64_t until_ms)
{
	int64_t wait = until_ms - clock_mono_ms();

	lws_sul_schedule(lws_get_context(ws->wsi), 0, &ws->release, release,
			 (wait > 0 ? wait : 0) * LWS_US_PER_MS + 1);
}

static void release(lws_sorted_usec_list_t *timer)
{
	struct ws *ws = lws_container_of(timer, struct ws, release);
	int64_t now = clock_mono_ms();
	struct held held;

	while (buf_len(&ws->held)) {
		memcpy(&held, buf_span(&ws->held).p, sizeof(held));
		if (held.until_ms > now) {
			schedule_release(ws, held.until_ms);
			break;
		}
		ws->ready += held.n;
		buf_take(&ws->held, sizeof(held));
	}
	lws_callback_on_writable(ws->wsi);
}

static void send_text(struct ws *ws, struct span text)
{
	long delay = ws->service->options->delay_ms;
	size_t before = buf_len(&ws->out);

	add_header(&ws->out, text.n);
	buf_add(&ws->out, text.p, text.n);
	size_t n = buf_len(&ws->out) - before;
	if (delay == 0) {
		ws->ready += n;
		lws_callback_on_writable(ws->wsi);
		return;
	}
	struct held held = {clock_mono_ms() + delay, n};
	if (!buf_len(&ws->held))
		schedule_release(ws, held.until_ms);
	buf_add(&ws->held, &held, sizeof(held));
}

static void notify(struct subscriber *s, struct span text)
{
	struct ws *ws = (struct ws *)s;

	if (ws->doomed)
		return;
	if (buf_len(&ws->out) + text.n > OUT_HARD) {
		ws->doomed = true;
		lws_set_timeout(ws->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
		return;
	}
	send_text(ws, text);
}

/* Reading stops above OUT_SOFT bytes of output and resumes below half of that. */
static void control_reading(struct ws *ws)
{
	size_t n = buf_len(&ws->out);
	bool pause = ws->paused ? n > OUT_SOFT / 2 : n > OUT_SOFT;

	if (pause != ws->paused)
		lws_rx_flow_control(ws->wsi, !pause);
	ws->paused = pause;
}

int ws_writable(struct ws *ws)
{
	if (ws->expired) {
		lws_close_reason(ws->wsi, LWS_CLOSE_STATUS_POLICY_VIOLATION,
				 (unsigned char *)"Token expired", 13);
		return -1;
	}
	while (ws->ready && !lws_partial_buffered(ws->wsi)) {
		struct span out = buf_span(&ws->out);
		size_t n = batch((struct span){out.p, ws->ready});
		if (lws_write(ws->wsi, (unsigned char *)out.p, n, LWS_WRITE_RAW) < 0)
			return -1;
		buf_take(&ws->out, n);
		ws->ready -= n;
	}
	if (ws->ready)
		lws_callback_on_writable(ws->wsi);
	else if (!buf_len(&ws->out))
		buf_release(&ws->out);
	control_reading(ws);
	return 0;
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

int ws_receive(struct ws *ws, struct span piece)
{
	bool last = lws_is_final_fragment(ws->wsi) && lws_remaining_packet_payload(ws->wsi) == 0;

	if (buf_len(&ws->in) + piece.n > (size_t)ws->service->options->max_message) {
		lws_close_reason(ws->wsi, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE,
				 (unsigned char *)"Message too big", 15);
		return -1;
	}
	if (last && !buf_len(&ws->in)) {
		serve(ws, piece);
	} else {
		buf_add(&ws->in, piece.p, piece.n);
		if (last) {
			serve(ws, buf_span(&ws->in));
			buf_release(&ws->in);
		}
	}
	control_reading(ws);
	return 0;
}

/* --- coming and going */

/* Identifies the client of an upgrade: its API key, and its grant if it has a token. NULL: *refusal
 * is the HTTP status. */
static struct api_key *identify(struct service *sv, struct lws *wsi, struct grant **grant,
				int *refusal)
{
	struct buf text = {0};
	struct api_key *key;

	*grant = NULL;
	if (http_query(wsi, SPAN("token"), &text)) {
		key = service_token(sv, buf_span(&text), grant);
		*refusal = HTTP_STATUS_FORBIDDEN;
	} else {
		http_query(wsi, SPAN("apiKey"), &text);
		key = service_key(sv, buf_span(&text));
		*refusal = HTTP_STATUS_UNAUTHORIZED;
	}
	buf_release(&text);
	return key;
}

int ws_admit(struct service *sv, struct lws *wsi)
{
	char path[8];
	struct grant *grant;
	int refusal;

	if (lws_hdr_copy(wsi, path, sizeof(path), WSI_TOKEN_GET_URI) < 0 ||
	    strcmp(path, "/ws") != 0)
		return HTTP_STATUS_NOT_FOUND;
	if (!identify(sv, wsi, &grant, &refusal))
		return refusal;
	grant_free(grant);
	return 0;
}

static void expire(lws_sorted_usec_list_t *timer)
{
	struct ws *ws = lws_container_of(timer, struct ws, expiry);

	ws->expired = true;
	/* A client that does not read can't receive the close frame either. */
	lws_set_timeout(ws->wsi, PENDING_TIMEOUT_CLOSE_SEND, 2);
	lws_callback_on_writable(ws->wsi);
}

/* libwebsockets allocates new memory for an upgraded connection, so the client is identified again.
 */
int ws_open(struct ws *ws, struct service *sv, struct lws *wsi)
{
	int refusal;

	ws->wsi = wsi;
	ws->service = sv;
	ws->key = identify(sv, wsi, &ws->grant, &refusal);
	if (!ws->key)
		return -1;
	if (!ws->grant)
		return 0;
	ws->subscriber = (struct subscriber){.grant = ws->grant, .notify = notify};
	service_join(sv, &ws->subscriber);
	int64_t left = ws->grant->expires_ms - clock_wall_ms();
	lws_sul_schedule(lws_get_context(wsi), 0, &ws->expiry, expire,
			 (left > 0 ? left : 0) * LWS_US_PER_MS + 1);
	return 0;
}

void ws_close(struct ws *ws)
{
	if (!ws->wsi)
		return;
	lws_sul_cancel(&ws->release);
	lws_sul_cancel(&ws->expiry);
	if (ws->grant)
		service_leave(ws->service, &ws->subscriber);
	grant_free(ws->grant);
	buf_release(&ws->in);
	buf_release(&ws->out);
	buf_release(&ws->held);
	*ws = (struct ws){0};
}
