#include "rest.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/timer.h"
#include "codec/json.h"
#include "codec/uri.h"
#include "conn.h"
#include "nexus.h"
#include "text.h"

enum { BODY_MAX = 64 * 1024, DRAIN_MAX = 1024 * 1024, TOKEN_MAX = 60 * 1024 };

/* Runs a request with a complete body and a known API key. */
typedef void route_run(struct rest *r);

struct rest_route {
	enum { METHOD_GET, METHOD_POST, METHOD_DELETE } method;
	struct span path;
	bool names_key; /* a record's key follows the path */
	route_run *run;
};

/* --- responses */

static const struct {
	int status;
	const char *text;
} STATUSES[] = {
	{200, "OK"},
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{411, "Length Required"},
	{413, "Payload Too Large"},
	{426, "Upgrade Required"},
	{429, "Too Many Requests"},
};

static const char *status_text(int status)
{
	for (size_t i = 0; i < sizeof(STATUSES) / sizeof(*STATUSES); i++) {
		if (STATUSES[i].status == status)
			return STATUSES[i].text;
	}
	return "Error";
}

/* Writes a response; members are those of the JSON object in its body. */
static void write_response(struct buf *out, int status, bool close, struct span members)
{
	buf_addf(out, "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n",
		 status, status_text(status), members.n + 2);
	if (status == 429)
		buf_addf(out, "retry-after: 1\r\n");
	if (status == 426)
		buf_addf(out, "upgrade: websocket\r\n");
	buf_addf(out, "%s\r\n{", close ? "connection: close\r\n" : "");
	buf_add(out, members.p, members.n);
	buf_addf(out, "}");
}

/* What the request has named stays until the next one: a change is made known after its answer. */
static void send_reply(struct rest *r)
{
	conn_send(r->conn, buf_span(&r->reply));
	buf_release(&r->reply);
	if (r->close)
		conn_finish(r->conn);
	else
		conn_next_request(r->conn);
}

static void on_release(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	send_reply(arg);
}

static void reply(struct rest *r, int status, struct span members)
{
	long delay = r->service->options->delay_ms;

	write_response(&r->reply, status, r->close, members);
	r->answered = true;
	if (!delay) {
		send_reply(r);
		return;
	}
	r->release = timer_new(r->conn->base, on_release, r);
	timer_start(r->release, delay);
}

static void reply_outcome(struct rest *r, struct outcome *o)
{
	reply(r, o->code, buf_span(&o->body));
	buf_release(&o->body);
}

static void reply_error(struct rest *r, int status, const char *error)
{
	struct outcome o = {0};

	ops_fail(&o, status, error);
	reply_outcome(r, &o);
}

static void reply_and_close(struct rest *r, int status)
{
	r->close = true;
	reply_error(r, status, status_text(status));
}

/* --- the routes */

static void run(struct rest *r, const struct command *c)
{
	struct service *sv = r->service;
	struct outcome o;

	service_run(sv, r->key, NULL, c, &o);
	if (c->op == OP_INCREMENT)
		ops_add_rest_sum(&o);
	bool changed = o.changed;
	if (changed)
		service_publish(sv, c, true);
	reply_outcome(r, &o);
	if (changed)
		service_publish(sv, c, false);
}

/* Checks a key or bound from the URL, the only source of bytes that no JSON parser has checked. */
static bool utf8_or_refuse(struct rest *r, struct span text)
{
	if (text_is_utf8(text))
		return true;
	reply_error(r, 400, "The address is not UTF-8");
	return false;
}

static void run_on_path(struct rest *r, enum op op)
{
	struct command c = {.op = op, .key = buf_span(&r->path)};

	if (utf8_or_refuse(r, c.key))
		run(r, &c);
}

static void get_record(struct rest *r)
{
	run_on_path(r, OP_GET);
}

static void delete_record(struct rest *r)
{
	run_on_path(r, OP_DELETE);
}

static void get_records(struct rest *r)
{
	struct command c = {
		.op = OP_RANGE, .key = buf_span(&r->start), .end_key = buf_span(&r->end)};

	if (buf_len(&r->limit)) {
		char *end;
		buf_add(&r->limit, "", 1);
		c.has_limit = true;
		c.limit = strtol(buf_span(&r->limit).p, &end, 10);
		if (*end || c.limit < 1) {
			reply_error(r, 400, "limit must be a whole number above 0");
			return;
		}
	}
	if (utf8_or_refuse(r, c.key) && utf8_or_refuse(r, c.end_key))
		run(r, &c);
}

/* A set with partialUpdate is a patch. */
static void run_body(struct rest *r, enum op op)
{
	struct command c;
	const char *why;

	if (command_read(&c, buf_span(&r->body), &why) < 0) {
		reply_error(r, 400, why);
	} else {
		c.op = op == OP_SET && c.partial ? OP_PATCH : op;
		run(r, &c);
	}
	command_fini(&c);
}

static void post_record(struct rest *r)
{
	run_body(r, OP_SET);
}

static void post_atomic(struct rest *r)
{
	run_body(r, OP_INCREMENT);
}

static void post_token(struct rest *r)
{
	int64_t expires = clock_wall_ms() + (int64_t)(r->service->options->token_ttl_s * 1000);
	struct buf token = {0}, members = {0};
	const char *why;

	if (!service_may(r->key)) {
		reply_error(r, 429, "Rate limit exceeded");
	} else if (grant_mint(r->key->secret, buf_span(&r->body), expires, &token, &why) < 0) {
		reply_error(r, 400, why);
	} else if (buf_len(&token) > TOKEN_MAX) {
		reply_error(r, 400, "Too many keys for one token");
	} else {
		buf_addf(&members, "\"token\":");
		json_add_string(&members, buf_span(&token));
		reply(r, 200, buf_span(&members));
	}
	buf_release(&members);
	buf_release(&token);
}

static void run_nexus(struct rest *r, nexus_run *answer)
{
	struct outcome o = {0};

	if (!service_may(r->key))
		ops_fail(&o, 429, "Rate limit exceeded");
	else
		answer(r->service->store, buf_span(&r->body), &o);
	reply_outcome(r, &o);
}

static void post_search(struct rest *r)
{
	run_nexus(r, nexus_search);
}

static void post_query(struct rest *r)
{
	run_nexus(r, nexus_query);
}

static const struct rest_route ROUTES[] = {
	{METHOD_POST, {"/record", 7}, false, post_record},
	{METHOD_POST, {"/record/atomic", 14}, false, post_atomic},
	{METHOD_GET, {"/records", 8}, false, get_records},
	{METHOD_GET, {"/record/", 8}, true, get_record},
	{METHOD_DELETE, {"/record/", 8}, true, delete_record},
	{METHOD_POST, {"/token/websocket", 16}, false, post_token},
	{METHOD_POST, {"/search", 7}, false, post_search},
	{METHOD_POST, {"/query", 6}, false, post_query},
};

/* --- a request's life */

static int method_of(const struct http *h)
{
	return h->parser.method == HTTP_GET      ? (int)METHOD_GET
	       : h->parser.method == HTTP_POST   ? (int)METHOD_POST
	       : h->parser.method == HTTP_DELETE ? (int)METHOD_DELETE
						 : -1;
}

/* The route; NULL: *status says why there is none. */
static const struct rest_route *find_route(int method, struct span path, int *status)
{
	*status = span_equal(path, SPAN("/ws")) ? 426 : 404;
	for (size_t i = 0; i < sizeof(ROUTES) / sizeof(*ROUTES); i++) {
		const struct rest_route *route = &ROUTES[i];
		bool fits = route->names_key ? path.n > route->path.n : path.n == route->path.n;
		if (!fits || memcmp(path.p, route->path.p, route->path.n) != 0)
			continue;
		if ((int)route->method == method)
			return route;
		*status = 405;
	}
	return NULL;
}

static struct api_key *find_key(const struct rest *r)
{
	const struct http *h = &r->conn->http;

	return h->has[HEADER_API_KEY]
		       ? service_key(r->service, buf_span(&h->values[HEADER_API_KEY]))
		       : NULL;
}

/* A range's bound, as HPKV's own client writes it: encoded, and encoded again. */
static bool read_bound(const struct http *h, struct span name, struct buf *out)
{
	struct buf once = {0};
	bool good = http_parameter(h, name, &once);

	if (good && uri_is_encoded_again(buf_span(&once)))
		uri_decode(buf_span(&once), out);
	else if (good)
		buf_add(out, buf_span(&once).p, buf_len(&once));
	buf_release(&once);
	return good;
}

/* False: the address is not what it ought to be. */
static bool read_address(struct rest *r)
{
	const struct http *h = &r->conn->http;
	struct span path = http_path(h);
	bool good = true;

	if (r->route->names_key) {
		size_t n = r->route->path.n;
		good = uri_decode((struct span){path.p + n, path.n - n}, &r->path);
		buf_room(&r->path, 1)[0] = '\0'; /* behind it, and not counted */
	}
	read_bound(h, SPAN("startKey"), &r->start);
	read_bound(h, SPAN("endKey"), &r->end);
	http_parameter(h, SPAN("limit"), &r->limit);
	return good;
}

/* A refusal waits for the body as well: whoever is still sending when the connection closes might
 * never see the answer. Only what is far too long, or does not say how long it is, is cut off. */
void rest_begin(struct rest *r, struct conn *conn)
{
	int method = method_of(&conn->http), status;
	int64_t length = http_content_length(&conn->http);

	rest_end(r);
	r->conn = conn;
	r->service = conn->service;
	r->route = find_route(method, http_path(&conn->http), &status);
	r->key = find_key(r);
	r->close = !http_should_keep_alive(&conn->http.parser);
	r->refusal = length > BODY_MAX ? 413 : !r->route ? status : !r->key ? 401 : 0;
	if (!r->refusal && !read_address(r))
		r->refusal = 400;
	if (method == METHOD_POST && length < 0)
		reply_and_close(r, 411);
	else if (length > DRAIN_MAX)
		reply_and_close(r, 413);
}

void rest_body(struct rest *r, struct span piece)
{
	if (r->conn && !r->refusal && !r->answered && buf_len(&r->body) + piece.n <= BODY_MAX)
		buf_add(&r->body, piece.p, piece.n);
}

/* The whole request is here. */
void rest_body_end(struct rest *r)
{
	if (!r->conn || r->answered)
		return;
	if (r->refusal)
		reply_error(r, r->refusal,
			    r->refusal == 401 ? "Invalid API key" : status_text(r->refusal));
	else
		r->route->run(r);
}

void rest_end(struct rest *r)
{
	if (!r->conn)
		return;
	if (r->release)
		event_free(r->release);
	buf_release(&r->path);
	buf_release(&r->start);
	buf_release(&r->end);
	buf_release(&r->limit);
	buf_release(&r->body);
	buf_release(&r->reply);
	*r = (struct rest){0};
}

void rest_refuse(struct conn *conn, int status)
{
	struct outcome o = {0};
	struct buf out = {0};

	ops_fail(&o, status, status_text(status));
	write_response(&out, status, true, buf_span(&o.body));
	conn_send(conn, buf_span(&out));
	conn_finish(conn);
	buf_release(&o.body);
	buf_release(&out);
}
