#include "rest.h"

#include <stdlib.h>

#include "base/clock.h"
#include "http.h"
#include "codec/json.h"
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

static void release(lws_sorted_usec_list_t *timer)
{
	struct rest *r = lws_container_of(timer, struct rest, release);

	lws_callback_on_writable(r->wsi);
}

static void reply(struct rest *r, int status, struct span members)
{
	long delay = r->service->options->delay_ms;

	write_response(&r->reply, status, r->close, members);
	if (delay)
		lws_sul_schedule(lws_get_context(r->wsi), 0, &r->release, release,
				 delay * LWS_US_PER_MS);
	else
		lws_callback_on_writable(r->wsi);
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
	r->awaits_body = false;
	reply_error(r, status, status_text(status));
}

/* --- the routes */

static void run(struct rest *r, const struct command *c)
{
	struct outcome o;

	service_run(r->service, r->key, NULL, c, &o);
	bool changed = o.changed;
	if (changed)
		service_publish(r->service, c, true);
	reply_outcome(r, &o);
	if (changed)
		service_publish(r->service, c, false);
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

static const struct rest_route ROUTES[] = {
	{METHOD_POST, {"/record", 7}, false, post_record},
	{METHOD_POST, {"/record/atomic", 14}, false, post_atomic},
	{METHOD_GET, {"/records", 8}, false, get_records},
	{METHOD_GET, {"/record/", 8}, true, get_record},
	{METHOD_DELETE, {"/record/", 8}, true, delete_record},
	{METHOD_POST, {"/token/websocket", 16}, false, post_token},
};

/* --- a request's life */

static int method_of(struct lws *wsi)
{
	return lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI)      ? (int)METHOD_GET
	       : lws_hdr_total_length(wsi, WSI_TOKEN_POST_URI)   ? (int)METHOD_POST
	       : lws_hdr_total_length(wsi, WSI_TOKEN_DELETE_URI) ? (int)METHOD_DELETE
								 : -1;
}

/* Finds the route. NULL: *status is the reason. */
static const struct rest_route *find_route(int method, const char *uri, int *status)
{
	size_t n = strlen(uri);

	*status = strcmp(uri, "/ws") == 0 ? 426 : 404;
	for (size_t i = 0; i < sizeof(ROUTES) / sizeof(*ROUTES); i++) {
		const struct rest_route *route = &ROUTES[i];
		bool fits = route->names_key ? n > route->path.n : n == route->path.n;
		if (!fits || memcmp(uri, route->path.p, route->path.n) != 0)
			continue;
		if ((int)route->method == method)
			return route;
		*status = 405;
	}
	return NULL;
}

/* -1: no such header. */
static long long content_length(struct lws *wsi)
{
	char text[24];

	if (lws_hdr_copy(wsi, text, sizeof(text), WSI_TOKEN_HTTP_CONTENT_LENGTH) <= 0)
		return -1;
	return atoll(text);
}

static struct api_key *find_key(struct rest *r)
{
	struct buf text = {0};
	struct api_key *key =
		http_api_key(r->wsi, &text) ? service_key(r->service, buf_span(&text)) : NULL;

	buf_release(&text);
	return key;
}

static void read_address(struct rest *r, const char *uri)
{
	if (r->route->names_key) {
		size_t n = strlen(uri + r->route->path.n);
		buf_add(&r->path, uri + r->route->path.n, n + 1); /* with its NUL, */
		r->path.tail--;                                   /* which does not count */
	}
	http_query(r->wsi, SPAN("startKey"), &r->start);
	http_query(r->wsi, SPAN("endKey"), &r->end);
	http_query(r->wsi, SPAN("limit"), &r->limit);
}

/* Runs a complete request. */
static void finish(struct rest *r)
{
	if (r->refusal)
		reply_error(r, r->refusal,
			    r->refusal == 401 ? "Invalid API key" : status_text(r->refusal));
	else
		r->route->run(r);
}

/* A refusal waits for the body, too: a client that still sends when the connection closes may never
 * read the answer. Only bodies that are far too long, or of unknown length, are cut off. */
int rest_begin(struct rest *r, struct service *sv, struct lws *wsi, const char *uri)
{
	int method = method_of(wsi), status;
	long long length = content_length(wsi);

	rest_end(r);
	r->wsi = wsi;
	r->service = sv;
	r->route = find_route(method, uri, &status);
	r->key = find_key(r);
	r->refusal = length > BODY_MAX ? 413 : !r->route ? status : !r->key ? 401 : 0;
	r->awaits_body = length > 0 || (method == METHOD_POST && length == 0);
	if (method == METHOD_POST && length < 0)
		reply_and_close(r, 411);
	else if (length > DRAIN_MAX)
		reply_and_close(r, 413);
	else if (method < 0 && length < 0)
		reply_and_close(r, r->refusal);
	if (buf_len(&r->reply))
		return 0;
	if (!r->refusal)
		read_address(r, uri);
	if (!r->awaits_body)
		finish(r);
	return 0;
}

int rest_body(struct rest *r, struct span piece)
{
	if (r->refusal || !r->awaits_body)
		return 0;
	if (buf_len(&r->body) + piece.n > BODY_MAX)
		return -1;
	buf_add(&r->body, piece.p, piece.n);
	return 0;
}

int rest_body_end(struct rest *r)
{
	if (r->awaits_body)
		finish(r);
	r->awaits_body = false;
	return 0;
}

int rest_writable(struct rest *r)
{
	struct span out = buf_span(&r->reply);
	bool close = r->close;

	if (!out.n)
		return 0;
	if (lws_write(r->wsi, (unsigned char *)out.p, out.n, LWS_WRITE_HTTP) < 0)
		return -1;
	struct lws *wsi = r->wsi;
	rest_end(r);
	return lws_http_transaction_completed(wsi) || close ? -1 : 0;
}

void rest_end(struct rest *r)
{
	if (!r->wsi)
		return;
	lws_sul_cancel(&r->release);
	buf_release(&r->path);
	buf_release(&r->start);
	buf_release(&r->end);
	buf_release(&r->limit);
	buf_release(&r->body);
	buf_release(&r->reply);
	*r = (struct rest){0};
}

int rest_refuse_upgrade(struct lws *wsi, int status)
{
	struct outcome o = {0};
	struct buf out = {0};

	ops_fail(&o, status, status_text(status));
	write_response(&out, status, true, buf_span(&o.body));
	int written =
		lws_write(wsi, (unsigned char *)buf_span(&out).p, buf_len(&out), LWS_WRITE_HTTP);
	buf_release(&o.body);
	buf_release(&out);
	return written < 0 ? -1 : 1;
}
