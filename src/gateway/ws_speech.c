#include "gateway/ws_speech.h"

#include <stdlib.h>

#include "access/access.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/ws_frames.h"
#include "gateway/range_filter.h"

enum { LOOK_MS = 60000 /* the machine may have slept: how often a token's end is looked for */ };

struct ws_speech {
	struct speech speech; /* first */
	const struct ws_settings *settings;
	struct ws_reader *reader;
	struct buf rest; /* bytes that the reader has not been given */
	struct token_grant grant;
	struct peer_identity who; /* of grant */
	bool by_token, bound;
	bool finished;   /* the client will send nothing more */
	int64_t ends_at; /* boot_ms: of the token */
};

static struct ws_speech *ws_of(struct speech *s)
{
	return (struct ws_speech *)(void *)s;
}

/* ---- out ---- */

static void end(struct ws_speech *w, int code, struct span reason)
{
	if (w->speech.over)
		return;
	ws_add_close(&w->speech.out.own, code, reason);
	w->speech.over = true;
	w->speech.wake_at = 0;
	buf_release(&w->rest);
}

static void say(struct ws_speech *w, struct span line)
{
	struct buf *out = &w->speech.out.own;
	char head[WS_HEAD_MAX];

	buf_add(out, head, ws_head(head, WS_OPCODE_TEXT, line.n));
	buf_add(out, line.p, line.n);
}

/* In a block of its own, which is wiped: it leaves no copies in a buffer that grows. */
static void say_secret(struct ws_speech *w, struct span line)
{
	struct shared_line *block = shared_line_new(WS_HEAD_MAX + line.n, (struct span){0});
	size_t n = ws_head(block->text, WS_OPCODE_TEXT, line.n);

	block->secret = true;
	memcpy(block->text + n, line.p, line.n);
	block->n = (uint32_t)(n + line.n);
	outq_push(&w->speech.out, block);
	shared_line_unref(block);
}

/* The line that is first in the queue. False: there is none. */
static bool say_next(struct ws_speech *w)
{
	struct span line = speech_line(&w->speech);
	struct buf bounded = {0};

	if (!line.n)
		return false;
	struct span text = {line.p, line.n - 1}; /* without its line end */
	if (w->grant.pattern && range_filter(text, w->grant.pattern, &bounded))
		text = buf_span(&bounded);
	if (outq_first_is_secret(&w->speech.peer->out))
		say_secret(w, text);
	else
		say(w, text);
	buf_release(&bounded);
	outq_take(&w->speech.peer->out, line.n);
	return true;
}

static void ws_fill(struct speech *s, int64_t now)
{
	struct ws_speech *w = ws_of(s);

	(void)now;
	while (!s->over && outq_len(&s->out) < SPEECH_FILL_MAX && say_next(w))
		;
	if (outq_len(&s->peer->out))
		return;
	outq_trim(&s->peer->out);
	s->over |= w->finished && !s->peer->answers.unanswered;
}

/* ---- in ---- */

static void take_text(struct ws_speech *w, struct span text, int64_t now)
{
	w->settings->stats->door_requests[STATS_DOOR_WEBSOCKET]++;
	if (!json_is_utf8(text))
		end(w, WS_NOT_UTF8, SPAN("the message is not UTF-8"));
	else if (text.n == 0) /* an empty line would be ignored, and every message is answered */
		w->speech.host->line(w->speech.owner, SPAN(" "), now);
	else
		w->speech.host->line(w->speech.owner, text, now);
}

static void take(struct ws_speech *w, enum ws_event event, struct span payload, int code,
		 int64_t now)
{
	switch (event) {
	case WS_TEXT:
		take_text(w, payload, now);
		break;
	case WS_BINARY:
		end(w, WS_UNSUPPORTED, SPAN("messages are text"));
		break;
	case WS_TOO_LONG:
		w->settings->stats->door_requests[STATS_DOOR_WEBSOCKET]++;
		w->speech.host->too_long(w->speech.owner, payload);
		break;
	case WS_PING:
		ws_add_pong(&w->speech.out.own, payload);
		break;
	case WS_CLOSE:
		end(w, code, payload);
		break;
	case WS_FAULT:
		end(w, WS_PROTOCOL_ERROR, (struct span){0});
		break;
	case WS_PONG:
	case WS_NEED_MORE:
		break;
	}
}

/* Hands on what is there, as long as the core takes it. */
static bool read_on(struct ws_speech *w, struct span *bytes, int64_t now)
{
	enum ws_event event = WS_PONG;
	bool may = true;

	ws_reader_set_max(w->reader, *w->settings->max_line);
	while (event != WS_NEED_MORE && may && !w->speech.over) {
		struct span payload = {0};
		int code = 0;
		event = ws_next(w->reader, bytes, &payload, &code);
		take(w, event, payload, code, now);
		may = w->speech.host->may_read(w->speech.owner);
	}
	if (event == WS_NEED_MORE)
		ws_reader_rest(w->reader);
	return w->speech.over || event == WS_NEED_MORE;
}

static bool ws_resume(struct speech *s, int64_t now)
{
	struct ws_speech *w = ws_of(s);
	struct buf rest = w->rest;
	struct span bytes = buf_span(&rest);

	w->rest = (struct buf){0};
	bool all = read_on(w, &bytes, now);
	if (!all)
		buf_add(&w->rest, bytes.p, bytes.n);
	buf_wipe(&rest);
	return all;
}

/* From the 101 on, and not before: the subscriptions of the token itself are made with the rights
 * of whom it was made for. */
static void bind(struct ws_speech *w)
{
	if (!w->by_token || w->bound)
		return;
	access_bind(w->speech.peer, w->grant.pattern);
	w->bound = true;
}

static bool ws_feed(struct speech *s, struct span bytes, int64_t now)
{
	struct ws_speech *w = ws_of(s);

	bind(w);
	if (s->over)
		return true;
	if (buf_len(&w->rest)) {
		buf_add(&w->rest, bytes.p, bytes.n);
		return ws_resume(s, now);
	}
	if (read_on(w, &bytes, now))
		return true;
	buf_add(&w->rest, bytes.p, bytes.n);
	return false;
}

/* An end without a close frame: what is unanswered is answered. A subscriber is not waited for, as
 * one of lines is: of a TCP connection nobody tells whether the other end is still there. */
static void ws_finish(struct speech *s, int64_t now)
{
	(void)now;
	ws_of(s)->finished = true;
}

/* ---- ends ---- */

static void look_for_the_end(struct ws_speech *w, int64_t now)
{
	int64_t left = w->ends_at - w->settings->boot_ms();

	if (left <= 0)
		end(w, WS_POLICY, SPAN("the token has expired"));
	else
		w->speech.wake_at = now + (left < LOOK_MS ? left : LOOK_MS);
}

static void ws_wake(struct speech *s, int64_t now)
{
	struct ws_speech *w = ws_of(s);

	s->wake_at = 0;
	if (w->by_token && !s->over)
		look_for_the_end(w, now);
}

static void ws_farewell(struct speech *s, enum reply_error why)
{
	struct ws_speech *w = ws_of(s);
	struct buf line = {0};

	if (why == REPLY_SHUTTING_DOWN) {
		while (!s->over && say_next(w))
			;
		end(w, WS_GOING_AWAY, SPAN("hpkvd is shutting down"));
	} else if (why == REPLY_SLOW_CLIENT) {
		reply_error(&line, why, (struct span){0}, NULL, -1);
		say(w, (struct span){buf_span(&line).p, buf_len(&line) - 1});
		end(w, WS_TRY_AGAIN, SPAN("the client does not read what it is sent"));
	} else {
		end(w, WS_POLICY, SPAN("the key or token has been revoked"));
	}
	buf_release(&line);
}

/* ---- as a speech ---- */

static size_t ws_kept_in(const struct speech *s)
{
	const struct ws_speech *w = (const struct ws_speech *)(const void *)s;

	return buf_len(&w->rest) + ws_reader_kept(w->reader);
}

static size_t ws_kept_out(const struct speech *s)
{
	(void)s;
	return 0;
}

static bool ws_is_busy(const struct speech *s)
{
	(void)s;
	return false;
}

static void ws_free(struct speech *s)
{
	struct ws_speech *w = ws_of(s);

	ws_reader_free(w->reader);
	buf_release(&w->rest);
	token_grant_fini(&w->grant);
	free(w);
}

static const struct speech_ops ws_ops = {
	.feed = ws_feed,
	.resume = ws_resume,
	.finish = ws_finish,
	.fill = ws_fill,
	.wake = ws_wake,
	.kept_in = ws_kept_in,
	.kept_out = ws_kept_out,
	.is_busy = ws_is_busy,
	.farewell = ws_farewell,
	.free = ws_free,
	.name = "websocket",
	.door = STATS_DOOR_WEBSOCKET,
};

struct speech *ws_speech_new(const struct ws_settings *settings, struct token_grant *grant,
			     int64_t left_ms)
{
	struct ws_speech *w = mem_zalloc(sizeof(*w));

	w->speech.ops = &ws_ops;
	w->settings = settings;
	w->reader = ws_reader_new(*settings->max_line);
	if (!grant)
		return &w->speech;
	w->by_token = true;
	w->grant = *grant;
	*grant = (struct token_grant){0};
	w->who = token_holder_identity(&w->grant.holder);
	w->speech.who = &w->who;
	w->ends_at = settings->boot_ms() + left_ms;
	w->speech.wake_at = 1; /* at once: the end is looked for */
	return &w->speech;
}
