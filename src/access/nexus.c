#include "access/nexus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/mem.h"
#include "codec/json.h"

struct ask {
	TAILQ_ENTRY(ask) entry; /* nexus::waiting or nexus::sent */
	struct nexus *nexus;
	struct pending *pending;              /* the router's */
	struct token_client_request *request; /* NULL: it waits */
	enum request_op op;
	bool was_sent; /* or may have been, before new settings interrupted it */
	size_t n;
	char body[];
};

TAILQ_HEAD(ask_list, ask);

struct nexus {
	struct event_base *base;
	struct router *router;
	struct access *access;
	struct token_client *search, *query; /* NULL: there is no Nexus */
	const char *api_key;
	struct ask_list waiting, sent;
	unsigned n, n_sent;
};

/* ---- life ---- */

static struct token_client *client_for(struct nexus *n, const struct nexus_settings *settings,
				       const char *path)
{
	struct token_client_settings client = settings->client;
	struct buf text = {0};

	buf_addf(&text, "%s%s", settings->path_prefix, path);
	buf_add(&text, "", 1);
	client.path = buf_span(&text).p;
	struct token_client *made = token_client_new(n->base, &client);
	buf_release(&text);
	return made;
}

static bool is_there(const struct nexus_settings *settings)
{
	return settings->client.host && settings->api_key;
}

static void use(struct nexus *n, const struct nexus_settings *settings)
{
	bool there = is_there(settings);

	n->api_key = settings->api_key;
	n->search = there ? client_for(n, settings, "/search") : NULL;
	n->query = there ? client_for(n, settings, "/query") : NULL;
}

static void forget_clients(struct nexus *n)
{
	if (n->search)
		token_client_free(n->search);
	if (n->query)
		token_client_free(n->query);
	n->search = n->query = NULL;
}

struct nexus *nexus_new(struct event_base *base, const struct nexus_settings *settings,
			struct router *router, struct access *access)
{
	struct nexus *n = mem_zalloc(sizeof(*n));

	*n = (struct nexus){.base = base, .router = router, .access = access};
	TAILQ_INIT(&n->waiting);
	TAILQ_INIT(&n->sent);
	use(n, settings);
	return n;
}

void nexus_free(struct nexus *n)
{
	forget_clients(n);
	free(n);
}

bool nexus_is_there(const struct nexus *n)
{
	return n->search != NULL;
}

void nexus_join(struct peer *peer)
{
	peer->nexus = (struct nexus_peer){.n = 0};
}

/* ---- turns ---- */

static void on_done(void *owner, const struct token_client_answer *answer);

static void send_ask(struct ask *a)
{
	struct nexus *n = a->nexus;
	struct token_client_params params = {
		.api_key = n->api_key,
		.body = {a->body, a->n},
	};

	TAILQ_REMOVE(&n->waiting, a, entry);
	TAILQ_INSERT_TAIL(&n->sent, a, entry);
	n->n_sent++;
	a->pending->peer->nexus.sent++;
	a->pending->deferred.timeout_error = REPLY_TIMEOUT;
	a->request =
		token_client_mint(a->op == OP_SEARCH ? n->search : n->query, &params, on_done, a);
}

/* Of the client that has the fewest under way; of equals, the one that has waited the longest. */
static struct ask *next_ask(const struct nexus *n)
{
	struct ask *next = NULL, *a;

	TAILQ_FOREACH (a, &n->waiting, entry) {
		if (!next || a->pending->peer->nexus.sent < next->pending->peer->nexus.sent)
			next = a;
	}
	return next;
}

static void pump(struct nexus *n)
{
	struct ask *a;

	while (n->search && n->n_sent < NEXUS_AT_ONCE && !router_is_stopping(n->router) &&
	       (a = next_ask(n)))
		send_ask(a);
}

static void wait_for_turn(struct ask *a)
{
	TAILQ_INSERT_TAIL(&a->nexus->waiting, a, entry);
	a->pending->deferred.timeout_error = REPLY_QUEUE_FULL;
}

static void unsend(struct ask *a)
{
	TAILQ_REMOVE(&a->nexus->sent, a, entry);
	a->nexus->n_sent--;
	a->pending->peer->nexus.sent--;
	a->request = NULL;
}

/* It is out of its list. */
static void free_ask(struct ask *a)
{
	a->nexus->n--;
	a->pending->peer->nexus.n--;
	a->pending->deferred.request = NULL;
	free(a);
}

/* ---- requests ---- */

void nexus_ask(struct nexus *n, struct peer *peer, const struct request *request, int64_t now)
{
	struct pending *p = router_defer(n->router, peer, request, now);
	struct span body = request->body.text;

	if (router_is_stopping(n->router)) {
		router_refuse(n->router, p, REPLY_SHUTTING_DOWN, NULL, ROUTER_RESTART_MS);
		return;
	}
	if (n->n >= NEXUS_MAX || peer->nexus.n >= NEXUS_PEER_MAX) {
		router_refuse(n->router, p, REPLY_QUEUE_FULL,
			      "too many requests for HPKV Nexus are waiting", -1);
		return;
	}
	struct ask *a = mem_alloc(sizeof(*a) + body.n);
	*a = (struct ask){.nexus = n, .pending = p, .op = request->op, .n = body.n};
	memcpy(a->body, body.p, body.n);
	p->deferred.request = a;
	n->n++;
	peer->nexus.n++;
	wait_for_turn(a);
	pump(n);
}

const char *nexus_deferred_end(struct nexus *n, struct pending *p)
{
	struct ask *a = p->deferred.request;
	bool unsent;

	if (!a)
		return NULL;
	unsent = !a->request && !a->was_sent;
	if (!a->request) {
		TAILQ_REMOVE(&n->waiting, a, entry);
	} else {
		token_client_cancel(a->request);
		unsend(a);
	}
	free_ask(a);
	pump(n);
	return unsent ? "not sent within its time: other requests for HPKV Nexus were before it"
		      : NULL;
}

/* ---- answers ---- */

static void refuse(struct nexus *n, struct pending *p, enum reply_error error, const char *why)
{
	router_refuse(n->router, p, error, why, -1);
}

/* The members of Nexus's object behind "code". False: it is none. */
static bool write_answer(struct span text, int status, int retry_after_s, struct buf *out)
{
	struct json_object_reader reader;
	struct json_member m;
	int more;

	buf_addf(out, "{\"code\":%d", status);
	json_object_begin(&reader, text);
	while ((more = json_object_next(&reader, &m)) > 0) {
		if (json_string_is(&m.name, SPAN("code")))
			continue;
		buf_addf(out, ",");
		buf_add(out, m.whole.p, m.whole.n);
	}
	if (retry_after_s >= 0)
		buf_addf(out, ",\"retryAfterMs\":%lld", 1000LL * retry_after_s);
	buf_addf(out, "}");
	wire_flatten(buf_start(out), buf_len(out));
	return more == 0;
}

static void settle(struct nexus *n, struct pending *p, const struct token_client_answer *answer)
{
	struct buf object = {0};
	int status = answer->http_status;

	if (!write_answer(answer->body, status, answer->retry_after_s, &object)) {
		buf_take(&object, buf_len(&object));
		buf_addf(&object, "{\"code\":%d,\"error\":\"HPKV Nexus: HTTP status %d\"}", status,
			 status);
		if (status < 400) {
			buf_release(&object);
			refuse(n, p, REPLY_BAD_UPSTREAM, "HPKV Nexus has answered no JSON object");
			return;
		}
	}
	router_settle_secret(n->router, p, buf_span(&object));
	buf_release(&object);
}

static void on_done(void *owner, const struct token_client_answer *answer)
{
	struct ask *a = owner;
	struct nexus *n = a->nexus;
	struct pending *p = a->pending;
	int status = answer->http_status;
	bool sent = answer->sent || a->was_sent;
	char why[100];

	unsend(a);
	free_ask(a);
	snprintf(why, sizeof(why), "HPKV Nexus has answered with HTTP status %d%s", status,
		 status == 401 || status == 403 ? ": it refuses the API key of the daemon" : "");
	if (status == 0)
		refuse(n, p, sent ? REPLY_OUTCOME_UNKNOWN : REPLY_UPSTREAM_DOWN, answer->why);
	else if (status == 401 || status == 403 || status / 100 == 3 || status < 200)
		refuse(n, p, REPLY_BAD_UPSTREAM, why);
	else
		settle(n, p, answer);
	pump(n);
}

/* ---- new settings ---- */

/* Without the clients nothing is sent meanwhile. */
void nexus_interrupt(struct nexus *n)
{
	struct ask *a;

	while ((a = TAILQ_LAST(&n->sent, ask_list))) {
		token_client_cancel(a->request);
		unsend(a);
		TAILQ_INSERT_HEAD(&n->waiting, a, entry);
		a->was_sent = true;
	}
	forget_clients(n);
}

/* It is not sent any more. */
static void give_up(struct nexus *n, const struct ask *a, enum reply_error error, const char *why)
{
	if (a->was_sent) {
		error = REPLY_OUTCOME_UNKNOWN;
		why = "sent to HPKV Nexus, but new settings came before an answer";
	}
	refuse(n, a->pending, error, why);
}

static void judge_again(struct nexus *n, bool there, int64_t now)
{
	struct ask *next;

	for (struct ask *a = TAILQ_FIRST(&n->waiting); a; a = next) {
		struct request request = {.op = a->op};
		next = TAILQ_NEXT(a, entry);
		const char *why = access_forbids(n->access, a->pending->peer, &request, now);
		if (why)
			give_up(n, a, REPLY_FORBIDDEN, why);
		else if (!there)
			give_up(n, a, REPLY_UNKNOWN_OP, "there is no HPKV Nexus here any more");
	}
}

void nexus_set(struct nexus *n, const struct nexus_settings *settings, int64_t now)
{
	nexus_interrupt(n);
	judge_again(n, is_there(settings), now);
	use(n, settings);
	pump(n);
}
