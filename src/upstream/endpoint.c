#include "upstream/endpoint.h"

#include <stdlib.h>
#include <string.h>

#include "transport/websocket.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/timer.h"

/* What endpoints with the same trust anchors share: making it takes a while, and memory. */
struct anchors {
	struct websocket_context *websockets;
	unsigned char digest[CA_DIGEST_SIZE];
	unsigned endpoints;
};

/* ---- trust anchors ---- */

static void anchors_release(struct anchors *a)
{
	if (--a->endpoints)
		return;
	websocket_context_free(a->websockets);
	free(a);
}

/* Those of the present place, if they are the same. NULL, with a reason, when the CA file can't be
 * used. */
static struct anchors *anchors_get(struct endpoints *p, const struct endpoint_settings *s,
				   const char **why)
{
	struct anchors *a = p->present ? p->present->anchors : NULL;

	if (!a || memcmp(a->digest, s->ca_digest, sizeof(a->digest)) != 0) {
		struct websocket_context *websockets =
			websocket_context_new(p->base, s->ca_file, why);
		if (!websockets)
			return NULL;
		a = mem_zalloc(sizeof(*a));
		a->websockets = websockets;
		memcpy(a->digest, s->ca_digest, sizeof(a->digest));
	}
	a->endpoints++;
	return a;
}

/* ---- a place comes and goes ---- */

static void endpoint_free(struct endpoint *endpoint)
{
	anchors_release(endpoint->anchors);
	free(endpoint->shown);
	free(endpoint->host);
	free(endpoint->proxy_host);
	secret_free(&endpoint->proxy_login);
	free(endpoint);
}

struct endpoint *endpoint_new(struct endpoints *p, const struct endpoint_settings *s,
			      const char **why)
{
	struct anchors *anchors = anchors_get(p, s, why);

	if (!anchors)
		return NULL;
	struct endpoint *endpoint = mem_zalloc(sizeof(*endpoint));
	endpoint->anchors = anchors;
	endpoint->shown = mem_strdup(s->shown);
	endpoint->host = mem_strdup(s->conn.host);
	endpoint->proxy_host = s->conn.proxy_host ? mem_strdup(s->conn.proxy_host) : NULL;
	endpoint->proxy_login = s->conn.proxy_login ? secret_dup(s->conn.proxy_login) : NULL;
	endpoint->shared = (struct conn_shared){.base = p->base,
						.websockets = anchors->websockets,
						.settings = s->conn,
						.stats = p->stats,
						.memory = &endpoint->memory};
	endpoint->shared.settings.host = endpoint->host;
	endpoint->shared.settings.proxy_host = endpoint->proxy_host;
	endpoint->shared.settings.proxy_login = endpoint->proxy_login;
	return endpoint;
}

/* Frees it, if nobody needs it any more: not at once, since the link that has just ended may
 * be among the callers, and goes on with what it has in common with others. */
static void retire(struct endpoints *p, struct endpoint *endpoint)
{
	if (endpoint == p->present || endpoint->connections)
		return;
	LIST_INSERT_HEAD(&p->retired, endpoint, of_retired);
	timer_next_turn(p->reap);
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
	struct endpoints *p = arg;
	struct endpoint *endpoint;

	(void)fd;
	(void)what;
	while ((endpoint = LIST_FIRST(&p->retired))) {
		LIST_REMOVE(endpoint, of_retired);
		endpoint_free(endpoint);
	}
}

struct endpoint *endpoint_take(struct endpoints *p)
{
	p->present->connections++;
	return p->present;
}

void endpoint_leave(struct endpoints *p, struct endpoint *endpoint)
{
	endpoint->connections--;
	retire(p, endpoint);
}

/* ---- the present one ---- */

void endpoints_set(struct endpoints *p, struct endpoint *endpoint)
{
	struct endpoint *former = p->present;

	p->present = endpoint;
	if (former)
		retire(p, former);
}

void endpoint_set_times(struct endpoint *endpoint, const struct conn_settings *settings)
{
	endpoint->shared.settings.connect_timeout_ms = settings->connect_timeout_ms;
	endpoint->shared.settings.keepalive_ms = settings->keepalive_ms;
	endpoint->shared.settings.max_message = settings->max_message;
}

void endpoints_init(struct endpoints *p, struct event_base *base, struct stats *stats)
{
	*p = (struct endpoints){.base = base, .stats = stats};
	LIST_INIT(&p->retired);
	p->reap = timer_new(base, on_reap, p);
}

void endpoints_fini(struct endpoints *p)
{
	on_reap(-1, 0, p);
	if (p->present)
		endpoint_free(p->present);
	event_free(p->reap);
}
