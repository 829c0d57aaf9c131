#include "gateway/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "base/log.h"
#include "base/mem.h"
#include "codec/json.h"
#include "gateway/http_response.h"
#include "gateway/rest.h"
#include "codec/uri.h"

enum { SHOWN_MAX = 80 /* bytes of a path in the log */ };

enum exchange_state {
	EXCHANGE_READY,   /* its response is there */
	EXCHANGE_ASKED,   /* its line is with the core */
	EXCHANGE_DELAYED, /* READY at ready_at */
	EXCHANGE_HELD,    /* its line goes to the core once no exchange is before it */
	EXCHANGE_STATE_N
};

/* A request whose response has not left. */
struct exchange {
	TAILQ_ENTRY(exchange) entry;
	enum exchange_state state;
	enum rest_kind kind;
	bool head_only;          /* HEAD */
	bool close;              /* the connection ends behind the response */
	bool keep_alive;         /* an HTTP/1.0 client that asks for it */
	char *origin;            /* of the web page that may read the response; or NULL */
	char *shown;             /* method and path, for the log; or NULL */
	int status;              /* READY, DELAYED: of ... */
	struct buf response;     /* ... this */
	int64_t ready_at;        /* DELAYED */
	struct buf line;         /* HELD */
	struct local_key key;    /* HELD: whose it is, ... */
	bool has_key;            /* ... if it has one */
	struct http_offer offer; /* of REST_SOCKET */
	struct span extra;       /* header lines of its error; offer's */
};

/* What a client keeps us waiting for. */
enum wait { WAIT_NONE, WAIT_HEAD, WAIT_BODY, WAIT_STRANGER, WAIT_N };

TAILQ_HEAD(exchange_list, exchange);

struct http {
	struct speech speech; /* first */
	const struct http_settings *settings;
	struct http_message *message;
	struct exchange_list exchanges;
	unsigned n;
	size_t ready_bytes; /* of all responses that wait */
	int64_t now;        /* during a call */
	enum wait wait;     /* what the client keeps us waiting for, ... */
	int64_t since;      /* ... and since when */
	int64_t comment_at; /* of a stream: the next comment */
	bool blocked;       /* no further request until the first exchange has left */
	bool finished;      /* the client will send nothing more */
	bool last;          /* no further request at all: ends once all exchanges have left */
	bool leave_due;     /* the client waits for leave to send a body */
	bool streaming;     /* events, until the end */
	bool comment_due;
};

static struct http *http_of(struct speech *s)
{
	return (struct http *)(void *)s;
}

/* ---- exchanges ---- */

static struct exchange *exchange_new(struct http *h)
{
	struct exchange *x = mem_zalloc(sizeof(*x));

	x->kind = REST_KIND_N;
	TAILQ_INSERT_TAIL(&h->exchanges, x, entry);
	h->n++;
	return x;
}

static void exchange_free(struct http *h, struct exchange *x)
{
	TAILQ_REMOVE(&h->exchanges, x, entry);
	h->n--;
	h->ready_bytes -= buf_len(&x->response);
	buf_release(&x->response);
	buf_release(&x->line);
	buf_release(&x->offer.headers);
	buf_release(&x->offer.subscribe);
	if (x->offer.next && h->speech.who == x->offer.next->who)
		h->speech.who = NULL;
	speech_free(x->offer.next);
	free(x->origin);
	free(x->shown);
	free(x);
}

static struct http_response response_of(const struct http *h, const struct exchange *x, int status,
					struct span body)
{
	return (struct http_response){
		.status = status,
		.wall_ms = h->settings->wall_ms(),
		.body = body,
		.no_body = x->head_only,
		.close = x->close,
		.keep_alive = x->keep_alive,
		.origin = x->origin,
		.retry_after_ms = -1,
	};
}

static void make_ready(struct http *h, struct exchange *x, const struct http_response *r)
{
	http_response_write(&x->response, r);
	x->state = EXCHANGE_READY;
	x->status = r->status;
	h->ready_bytes += buf_len(&x->response);
	h->settings->stats->http_refused += r->status >= 400;
}

/* An error that this room answers itself. Wrong keys are told so late, so that guessing takes
 * time; nobody else waits for that. */
static void make_error(struct http *h, struct exchange *x, int status, const char *text,
		       struct span allow)
{
	struct buf body = {0};

	http_response_error(&body, status, text);
	struct http_response r = response_of(h, x, status, buf_span(&body));
	r.allow = allow;
	r.extra = x->extra;
	make_ready(h, x, &r);
	buf_release(&body);
	if (status != 401)
		return;
	x->state = EXCHANGE_DELAYED;
	x->ready_at = h->now + HTTP_DELAY_MS;
}

static void make_fault(struct http *h, struct exchange *x, const struct rest_fault *fault)
{
	struct buf body = {0};

	reply_error(&body, fault->error, (struct span){0}, fault->text, -1);
	buf_cut(&body, buf_len(&body) - 1); /* its line end */
	struct http_response r = response_of(h, x, reply_error_code(fault->error), buf_span(&body));
	make_ready(h, x, &r);
	buf_release(&body);
}

/* ---- who asks ---- */

/* What a request has presented as its key, decoded; to be wiped. */
static bool presented_key(const struct http_request *r, struct buf *key)
{
	static const char bearer[] = "Bearer ";
	size_t n, skip = strlen(bearer);
	struct span value = http_request_header(r, "x-api-key", &n);

	if (n == 0) {
		value = http_request_header(r, "Authorization", &n);
		n = n && value.n > skip && strncasecmp(value.p, bearer, skip) == 0;
		while (n && value.p[skip] == ' ') /* there may be more; none is at the end */
			skip++;
		if (n)
			value = (struct span){value.p + skip, value.n - skip};
	}
	buf_room(key, r->query.n + value.n); /* so that it is never moved */
	if (n == 0)
		return rest_parameter(r->query, SPAN("apiKey"), key);
	buf_add(key, value.p, value.n);
	return true;
}

static bool has_token(const struct http_request *r)
{
	struct span query = r->query, name, value;

	while (uri_next_parameter(&query, &name, &value)) {
		if (span_equal(name, SPAN("token")) && value.n)
			return span_equal(r->path, SPAN("/ws"));
	}
	return false;
}

/* Whether the request shows one of the local keys, which it then has. */
static bool is_known(struct http *h, const struct http_request *r, struct exchange *x)
{
	struct buf key = {0};

	x->has_key = presented_key(r, &key);
	if (x->has_key)
		x->key = local_key_of(buf_span(&key));
	buf_wipe(&key);
	bool known = x->has_key && h->speech.host->knows(h->speech.owner, &x->key);
	h->speech.known |= known;
	return known;
}

static bool is_preflight(const struct http_request *r)
{
	size_t n;

	http_request_header(r, "Access-Control-Request-Method", &n);
	return n > 0 && r->verb == HTTP_VERB_OPTIONS;
}

/* On TCP: may this request be answered at all? 0, or a status with *why. */
static int judge(struct http *h, const struct http_request *r, struct exchange *x, const char **why)
{
	size_t hosts, origins;
	struct span host = http_request_header(r, "Host", &hosts);
	struct span origin = http_request_header(r, "Origin", &origins);

	if (!h->speech.tcp)
		return 0;
	*why = "the Host of the request is neither a loopback address nor localhost";
	if ((hosts && !origin_is_local(host)) || (r->authority.n && !origin_is_local(r->authority)))
		return 403;
	*why = "pages of this origin are not in http_origins";
	if (origins > 1 || (origins && !origins_allow(h->settings->origins, origin)))
		return 403;
	if (origins)
		x->origin = mem_strndup(origin.p, origin.n);
	if ((origins && is_preflight(r)) || span_equal(r->path, SPAN("/hpkvd/ready")) ||
	    has_token(r))
		return 0;
	*why = "a local key is needed: as x-api-key, as Authorization: Bearer, or as apiKey= in "
	       "the query";
	return is_known(h, r, x) ? 0 : 401;
}

/* ---- what is asked ---- */

static bool is_json(struct span type)
{
	const char *end = memchr(type.p, ';', type.n);

	if (end)
		type.n = (size_t)(end - type.p);
	while (type.n && (type.p[type.n - 1] == ' ' || type.p[type.n - 1] == '\t'))
		type.n--;
	if (type.n == strlen("text/json") && strncasecmp(type.p, "text/json", type.n) == 0)
		return true;
	if (type.n < strlen("application/json") || strncasecmp(type.p, "application/", 12) != 0)
		return false;
	return strncasecmp(type.p + type.n - 5, "/json", 5) == 0 ||
	       strncasecmp(type.p + type.n - 5, "+json", 5) == 0;
}

/* Of a body that is to be read: is it JSON, as far as its headers say? */
static int judge_body(const struct http_request *r, const char **why)
{
	size_t types, codings;
	struct span type = http_request_header(r, "Content-Type", &types);
	struct span coding = http_request_header(r, "Content-Encoding", &codings);

	*why = "the body must be JSON: Content-Type: application/json";
	if (types > 1 || (types && !is_json(type)))
		return 415;
	*why = "the body must not be compressed";
	return codings && !(coding.n == 8 && strncasecmp(coding.p, "identity", 8) == 0) ? 415 : 0;
}

/* Without the query, which may have a key in it. */
static void note_shown(struct exchange *x, const struct http_request *r)
{
	static const char *const names[HTTP_VERB_N] = {
		[HTTP_VERB_GET] = "GET",         [HTTP_VERB_HEAD] = "HEAD",
		[HTTP_VERB_POST] = "POST",       [HTTP_VERB_PUT] = "PUT",
		[HTTP_VERB_PATCH] = "PATCH",     [HTTP_VERB_DELETE] = "DELETE",
		[HTTP_VERB_OPTIONS] = "OPTIONS",
	};
	char path[6 * SHOWN_MAX];
	struct buf b = {0};

	if (log_level() < LOG_LEVEL_DEBUG)
		return;
	size_t n = r->path.n < SHOWN_MAX ? r->path.n : SHOWN_MAX;
	n = json_escape((struct span){r->path.p, n}, path);
	buf_addf(&b, "%s %.*s%s", names[r->verb], (int)n, path, r->path.n > SHOWN_MAX ? "..." : "");
	x->shown = mem_strndup(buf_span(&b).p, buf_len(&b));
	buf_release(&b);
}

/* All that the head says. 0: the request may be made; x->kind is set, or it is OPTIONS. Else it has
 * its response. */
static int judge_head(struct http *h, const struct http_request *r, struct exchange *x)
{
	struct buf allow = {0};
	const char *why = "there is nothing at this path";
	int status;

	note_shown(x, r);
	x->head_only = r->verb == HTTP_VERB_HEAD;
	x->close = !r->keep_alive;
	x->keep_alive = r->keep_alive && r->http_1_0;
	status = judge(h, r, x, &why);
	if (!status && r->verb != HTTP_VERB_OPTIONS) {
		status = rest_find(r->verb, r->path, &x->kind, &allow);
		if (status)
			why = status == 404 ? "there is nothing at this path"
					    : "this path does not have this method";
	}
	if (!status && !h->settings->nexus && (x->kind == REST_SEARCH || x->kind == REST_QUERY)) {
		status = 404;
		why = "there is no HPKV Nexus here: nexus_url is not set";
	}
	if (!status && x->kind != REST_KIND_N && rest_has_body(x->kind))
		status = judge_body(r, &why);
	if (status) {
		x->close |= r->has_body;
		make_error(h, x, status, why, buf_span(&allow));
	}
	buf_release(&allow);
	return status;
}

static void answer_options(struct http *h, const struct http_request *r, struct exchange *x)
{
	struct buf allow = {0};
	struct http_response response = response_of(h, x, 204, (struct span){0});
	size_t n;

	rest_allow(r->path, &allow);
	if (!buf_len(&allow) && r->path.p[0] != '*') {
		make_error(h, x, 404, "there is nothing at this path", (struct span){0});
		return;
	}
	http_request_header(r, "Access-Control-Request-Private-Network", &n);
	response.private_network = n > 0;
	response.preflight = x->origin && is_preflight(r);
	response.allow = buf_span(&allow);
	make_ready(h, x, &response);
	buf_release(&allow);
}

static void answer_ready(struct http *h, struct exchange *x)
{
	bool ready = h->settings->ops->ready(h->settings->owner);
	struct buf body = {0};

	if (ready)
		buf_addf(&body, "{\"ready\":true}");
	else
		reply_error(&body, REPLY_UPSTREAM_DOWN, (struct span){0},
			    "there is no connection to the service", -1);
	struct span text = buf_span(&body);
	text.n -= !ready; /* the line end */
	struct http_response response = response_of(h, x, ready ? 200 : 503, text);
	make_ready(h, x, &response);
	buf_release(&body);
}

/* ---- to the core ---- */

static bool has_same_key(const struct http *h, const struct exchange *x)
{
	const struct speech *s = &h->speech;

	return !x->has_key || (s->has_key && memcmp(&s->key, &x->key, sizeof(x->key)) == 0);
}

/* False: there is no room for a client with this key, and that is the answer. */
static bool admit(struct http *h, struct exchange *x)
{
	struct rest_fault fault = {.error = REPLY_TOO_MANY_CLIENTS};

	if (has_same_key(h, x))
		return true;
	if (!h->speech.host->knows(h->speech.owner, &x->key)) {
		x->close |= x->kind == REST_SOCKET;
		make_error(h, x, 401, "the local key has been revoked", (struct span){0});
		return false;
	}
	h->speech.key = x->key;
	h->speech.has_key = true;
	const char *no_room = h->speech.host->admit(h->speech.owner);
	if (!no_room)
		return true;
	snprintf(fault.text, sizeof(fault.text), "%s", no_room);
	h->speech.has_key = false; /* the next request is judged again */
	x->close = true;
	make_fault(h, x, &fault);
	return false;
}

/* The same for an upgrade by token, whose connection is its holder's from now on: also while its
 * subscriptions are waited for. */
static bool admit_holder(struct http *h, struct exchange *x)
{
	struct rest_fault fault = {.error = REPLY_TOO_MANY_CLIENTS};
	const char *why;

	if (!x->offer.admit)
		return true;
	int status = x->offer.admit(h->settings->owner, h->speech.peer, x->offer.next, &why);
	if (!status) {
		h->speech.who = x->offer.next->who;
		return true;
	}
	x->close = true;
	if (status == 503) {
		snprintf(fault.text, sizeof(fault.text), "%s", why);
		make_fault(h, x, &fault);
	} else {
		make_error(h, x, status, why, (struct span){0});
	}
	return false;
}

/* x is the last exchange, or the only one. */
static void ask(struct http *h, struct exchange *x)
{
	struct buf line = x->line;

	x->line = (struct buf){0};
	x->state = EXCHANGE_ASKED;
	h->speech.host->line(h->speech.owner, buf_span(&line), h->now);
	buf_release(&line);
}

static void send_upgrade(struct http *h, struct exchange *x);

/* It has become the first: nothing of the client's is unanswered. */
static void begin_held(struct http *h, struct exchange *x)
{
	if (!admit(h, x) || !admit_holder(h, x))
		return;
	if (x->kind == REST_SOCKET && !buf_len(&x->offer.subscribe)) {
		send_upgrade(h, x);
		return;
	}
	if (x->kind == REST_SOCKET) {
		x->line = x->offer.subscribe;
		x->offer.subscribe = (struct buf){0};
	}
	ask(h, x);
}

static void answer_upgrade(struct http *h, const struct http_request *r, struct exchange *x)
{
	const struct http_settings *settings = h->settings;

	if (!settings->ops->upgrade) {
		make_error(h, x, 404, "there is nothing at this path", (struct span){0});
		return;
	}
	if (!r->upgrade || !http_request_lists(r, "Upgrade", "websocket")) {
		make_error(h, x, 426, "this path is for WebSocket: Upgrade: websocket",
			   (struct span){0});
		return;
	}
	settings->ops->upgrade(settings->owner, r, &x->offer);
	if (x->offer.status != 101) {
		x->close = true;
		x->extra = buf_span(&x->offer.headers);
		make_error(h, x, x->offer.status, x->offer.error, (struct span){0});
		if (x->offer.status == 403)
			x->state = EXCHANGE_DELAYED;
		x->ready_at = h->now + HTTP_DELAY_MS;
		return;
	}
	h->speech.known = true;
	x->close = false; /* the connection stays, as another */
	x->state = EXCHANGE_HELD;
}

static void make_request(struct http *h, const struct http_request *r, struct exchange *x)
{
	struct rest_fault fault;

	if (!rest_line(x->kind, r, &x->line, &fault)) {
		make_fault(h, x, &fault);
		return;
	}
	if (h->n == 1 && !admit(h, x))
		return;
	if (has_same_key(h, x))
		ask(h, x);
	else
		x->state = EXCHANGE_HELD;
}

static void answer(struct http *h, const struct http_request *r, struct exchange *x)
{
	if (r->verb == HTTP_VERB_OPTIONS)
		answer_options(h, r, x);
	else if (x->kind == REST_READY)
		answer_ready(h, x);
	else if (x->kind == REST_SOCKET)
		answer_upgrade(h, r, x);
	else
		make_request(h, r, x);
}

/* ---- requests ---- */

static void end_input(struct http *h)
{
	h->last = true;
	http_message_stop(h->message);
}

static enum http_verdict on_head(void *owner, const struct http_request *r)
{
	struct http *h = owner;
	struct exchange *x = exchange_new(h);

	h->wait = WAIT_NONE;
	if (judge_head(h, r, x)) {
		h->settings->stats->door_requests[STATS_DOOR_HTTP]++;
		end_input(h);
		return HTTP_STOP;
	}
	exchange_free(h, x);
	/* Those who asked before are answered before: leave to send a body is a response, too. */
	h->leave_due = r->expects_100;
	return HTTP_GO_ON;
}

static enum http_verdict on_request(void *owner, const struct http_request *r)
{
	struct http *h = owner;
	struct exchange *x = exchange_new(h);

	h->wait = WAIT_NONE; /* the bytes behind it are another head */
	h->leave_due = false;
	h->settings->stats->door_requests[STATS_DOOR_HTTP]++;
	if (!judge_head(h, r, x))
		answer(h, r, x);
	if (x->close) {
		end_input(h);
		return HTTP_STOP;
	}
	if (x->kind == REST_SOCKET && x->state == EXCHANGE_HELD)
		return HTTP_STOP; /* what follows is another protocol, or nothing */
	h->blocked =
		x->state == EXCHANGE_HELD || x->state == EXCHANGE_DELAYED || x->kind == REST_WATCH;
	return h->blocked || h->n >= h->settings->max_pipeline ||
			       !h->speech.host->may_read(h->speech.owner)
		       ? HTTP_HOLD
		       : HTTP_GO_ON;
}

static void on_fault(void *owner, int status, const char *why)
{
	struct http *h = owner;
	struct exchange *x = exchange_new(h);

	h->settings->stats->door_requests[STATS_DOOR_HTTP]++;
	x->close = true;
	make_error(h, x, status, why, (struct span){0});
	h->last = true;
}

static const struct http_message_ops message_ops = {
	.head = on_head, .request = on_request, .fault = on_fault};

/* ---- responses ---- */

static void put(struct http *h, struct span bytes, bool secret)
{
	if (!secret) {
		buf_add(&h->speech.out.own, bytes.p, bytes.n);
		return;
	}
	/* In a block of its own, which is wiped: it leaves no copies in a buffer that grows. */
	struct shared_line *block = shared_line_new(bytes.n, (struct span){0});
	block->secret = true;
	memcpy(block->text, bytes.p, bytes.n);
	outq_push(&h->speech.out, block);
	shared_line_unref(block);
}

/* The first exchange has had its response. */
static void leave(struct http *h, struct exchange *x, int status)
{
	if (x->shown)
		log_debug("client %llu: http: %s: %d", (unsigned long long)h->speech.peer->number,
			  x->shown, status);
	h->last |= x->close;
	exchange_free(h, x);
}

static void send_upgrade(struct http *h, struct exchange *x)
{
	struct http_response r = response_of(h, x, 101, (struct span){0});

	r.extra = buf_span(&x->offer.headers);
	http_response_write(&h->speech.out.own, &r);
	h->speech.next = x->offer.next;
	x->offer.next = NULL;
	http_message_rest(h->message, &h->speech.rest);
	leave(h, x, 101);
}

/* Nobody tells whether a TCP client that has shut its writing side is still there: only what is
 * sent to it. */
static int64_t comment_ms(const struct http *h)
{
	return h->finished && h->speech.tcp ? HTTP_LOOK_MS : HTTP_COMMENT_MS;
}

static void begin_stream(struct http *h, struct exchange *x)
{
	struct http_response r = response_of(h, x, 200, (struct span){0});

	r.type = "text/event-stream";
	r.stream = true;
	http_response_write(&h->speech.out.own, &r);
	http_message_stop(h->message);
	h->streaming = true;
	h->comment_at = h->now + comment_ms(h);
	leave(h, x, 200);
}

static void send_answer(struct http *h, struct exchange *x, const struct rest_answer *answer,
			struct span body)
{
	bool secret = x->kind == REST_TOKEN;
	struct buf bytes = {0}, *to = secret ? &bytes : &h->speech.out.own;

	x->close |= x->kind == REST_SOCKET;
	struct http_response r = response_of(h, x, answer->status, body);
	r.retry_after_ms = answer->retry_after_ms;
	r.extra = answer->cache;
	if (secret)
		buf_room(&bytes, body.n + 2048 + (x->origin ? strlen(x->origin) : 0));
	http_response_write(to, &r);
	if (secret)
		put(h, buf_span(&bytes), true);
	buf_wipe(&bytes);
	leave(h, x, answer->status);
}

/* The line that came first is the answer to the first exchange, unless nobody has asked for it. */
static bool take_answer(struct http *h, struct exchange *x)
{
	struct span line = speech_line(&h->speech);
	bool secret = x->kind == REST_TOKEN;
	struct buf body = {0};

	if (!line.n)
		return false;
	buf_room(&body, line.n + 64); /* so that it is not moved: there may be a token in it */
	struct rest_answer answer = rest_answer(x->kind, line, &body);
	outq_take(&h->speech.peer->out, line.n);
	if (answer.status == 200 && x->kind == REST_SOCKET)
		send_upgrade(h, x);
	else if (answer.status == 200 && x->kind == REST_WATCH)
		begin_stream(h, x);
	else if (answer.status)
		send_answer(h, x, &answer, buf_span(&body));
	if (secret)
		buf_wipe(&body);
	buf_release(&body);
	return true;
}

static bool take_event(struct http *h)
{
	struct span line = speech_line(&h->speech);

	if (line.n) {
		rest_event(line, &h->speech.out.own);
		outq_take(&h->speech.peer->out, line.n);
	} else if (h->comment_due && outq_len(&h->speech.out) == 0) {
		buf_addf(&h->speech.out.own, ":\n\n");
	}
	h->comment_due = false;
	return line.n > 0;
}

/* One more response, or one more step towards it. False: for now there is none. */
static bool step(struct http *h)
{
	struct exchange *x = TAILQ_FIRST(&h->exchanges);

	if (h->speech.next)
		return false;
	if (h->streaming)
		return take_event(h);
	if (!x)
		return false;
	switch (x->state) {
	case EXCHANGE_DELAYED:
		if (h->now < x->ready_at)
			return false;
		/* fall through */
	case EXCHANGE_READY:
		put(h, buf_span(&x->response), false);
		leave(h, x, x->status);
		return true;
	case EXCHANGE_ASKED:
		return take_answer(h, x);
	case EXCHANGE_HELD:
		begin_held(h, x);
		return true;
	case EXCHANGE_STATE_N:
		break;
	}
	return false;
}

/* Nothing is unanswered. */
static void settle(struct http *h)
{
	h->blocked = false;
	if (h->leave_due)
		buf_addf(&h->speech.out.own, "HTTP/1.1 100 Continue\r\n\r\n");
	h->leave_due = false;
	if (h->streaming ? h->speech.peer->topics.n == 0 && !outq_len(&h->speech.peer->out)
			 : h->last)
		h->speech.over = true;
	if (!outq_len(&h->speech.peer->out))
		outq_trim(&h->speech.peer->out);
}

/* ---- times ---- */

static int64_t sooner(int64_t a, int64_t b)
{
	return !a || (b && b < a) ? b : a;
}

static const struct {
	int64_t ms;
	const char *late; /* what is said then; NULL: nothing */
} waits[] = {
	[WAIT_HEAD] = {HTTP_HEAD_MS, "the head of the request did not come within 10 seconds"},
	[WAIT_BODY] = {HTTP_BODY_MS, "the body of the request did not come within 30 seconds"},
	[WAIT_STRANGER] = {HTTP_HEAD_MS, NULL},
};
_Static_assert(sizeof(waits) / sizeof(waits[0]) == WAIT_N, "a row for each");
_Static_assert(HTTP_HEAD_MS == 10000 && HTTP_BODY_MS == 30000, "the sentences above say so");

/* A client that has no leave yet to send a body keeps nobody waiting. */
static enum wait wait_of(const struct http *h)
{
	if (h->last)
		return WAIT_NONE;
	if (http_message_is_in_body(h->message))
		return h->leave_due ? WAIT_NONE : WAIT_BODY;
	if (http_message_is_in_head(h->message))
		return WAIT_HEAD;
	return h->speech.tcp && !h->speech.known && !h->n ? WAIT_STRANGER : WAIT_NONE;
}

static void set_wake(struct http *h)
{
	const struct exchange *x = TAILQ_FIRST(&h->exchanges);
	enum wait wait = wait_of(h);

	if (wait != h->wait)
		h->since = h->now;
	h->wait = wait;
	h->speech.wake_at = wait ? h->since + waits[wait].ms : 0;
	if (x && x->state == EXCHANGE_DELAYED)
		h->speech.wake_at = sooner(h->speech.wake_at, x->ready_at);
	if (h->streaming)
		h->speech.wake_at = sooner(h->speech.wake_at, h->comment_at);
}

static void give_up(struct http *h, enum wait wait)
{
	if (waits[wait].late) {
		http_message_stop(h->message);
		on_fault(h, 408, waits[wait].late);
	} else {
		end_input(h);
	}
}

/* ---- as a speech ---- */

static bool obey(struct http *h, enum http_verdict verdict)
{
	set_wake(h);
	return verdict != HTTP_HOLD && !(verdict == HTTP_STOP && h->n && !h->last);
}

static bool http_feed(struct speech *s, struct span bytes, int64_t now)
{
	struct http *h = http_of(s);

	h->now = now;
	http_message_set(h->message, h->settings->max_line); /* it may be another by now */
	return obey(h, http_message_feed(h->message, bytes));
}

static bool http_resume(struct speech *s, int64_t now)
{
	struct http *h = http_of(s);

	h->now = now;
	if (h->n >= h->settings->max_pipeline || (h->blocked && h->n))
		return false;
	return obey(h, http_message_resume(h->message));
}

static void http_finish(struct speech *s, int64_t now)
{
	struct http *h = http_of(s);

	h->now = now;
	h->finished = true;
	end_input(h);
	if (h->streaming)
		h->comment_at = now + comment_ms(h);
	set_wake(h);
}

static void http_fill(struct speech *s, int64_t now)
{
	struct http *h = http_of(s);

	h->now = now;
	while (outq_len(&h->speech.out) < SPEECH_FILL_MAX && step(h))
		;
	if (!h->n)
		settle(h);
	set_wake(h);
}

static void http_wake(struct speech *s, int64_t now)
{
	struct http *h = http_of(s);

	h->now = now;
	if (h->streaming && now >= h->comment_at) {
		h->comment_due = true;
		h->comment_at = now + comment_ms(h);
	}
	if (h->wait && now >= h->since + waits[h->wait].ms)
		give_up(h, h->wait);
	set_wake(h);
}

static size_t http_kept_in(const struct speech *s)
{
	return http_message_kept(((const struct http *)(const void *)s)->message);
}

static size_t http_kept_out(const struct speech *s)
{
	return ((const struct http *)(const void *)s)->ready_bytes;
}

static bool http_is_busy(const struct speech *s)
{
	return ((const struct http *)(const void *)s)->n > 0;
}

/* In a response there is no place for them: it is cut off, or none has begun. */
static void http_farewell(struct speech *s, enum reply_error why)
{
	if (!http_of(s)->streaming)
		return;
	buf_addf(&s->out.own, "event: error\ndata: ");
	reply_error(&s->out.own, why, (struct span){0}, NULL, -1);
	buf_addf(&s->out.own, "\n");
}

static void http_free(struct speech *s)
{
	struct http *h = http_of(s);
	struct exchange *x;

	while ((x = TAILQ_FIRST(&h->exchanges)))
		exchange_free(h, x);
	http_message_free(h->message);
	free(h);
}

static const struct speech_ops http_speech = {
	.feed = http_feed,
	.resume = http_resume,
	.finish = http_finish,
	.fill = http_fill,
	.wake = http_wake,
	.kept_in = http_kept_in,
	.kept_out = http_kept_out,
	.is_busy = http_is_busy,
	.farewell = http_farewell,
	.free = http_free,
	.name = "http",
	.door = STATS_DOOR_HTTP,
};

struct speech *http_new(const struct http_settings *settings, bool tcp, int64_t now)
{
	struct http *h = mem_zalloc(sizeof(*h));

	h->speech.ops = &http_speech;
	h->speech.tcp = tcp;
	h->settings = settings;
	h->message = http_message_new(&message_ops, h, settings->max_line);
	TAILQ_INIT(&h->exchanges);
	h->now = now;
	set_wake(h);
	return &h->speech;
}

void http_refusal(struct buf *out, enum reply_error error, const char *why, int64_t wall_ms)
{
	struct buf body = {0};

	reply_error(&body, error, (struct span){0}, why, -1);
	buf_cut(&body, buf_len(&body) - 1); /* its line end */
	struct http_response r = {.status = reply_error_code(error),
				  .wall_ms = wall_ms,
				  .body = buf_span(&body),
				  .close = true,
				  .retry_after_ms = -1};
	http_response_write(out, &r);
	buf_release(&body);
}
