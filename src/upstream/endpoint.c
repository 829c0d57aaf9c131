#include "upstream/endpoint.h"

#include <stdlib.h>
#include <string.h>

#include "transport/websocket.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/timer.h"

/* Shared by endpoints with the same trust anchors: a context takes time and memory to make. */
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

/* Those of the present endpoint, if they are the same. NULL, with a reason, when the CA file can't
 * be used. */
static struct anchors *anchors_get(struct endpoints *all, const struct endpoint_settings *s,
				   const char **why)
{
	struct anchors *a = all->present ? all->present->anchors : NULL;

	if (!a || memcmp(a->digest, s->ca_digest, sizeof(a->digest)) != 0) {
		struct websocket_context *websockets =
			websocket_context_new(all->base, s->trust, why);
		if (!websockets)
			return NULL;
		a = mem_zalloc(sizeof(*a));
		a->websockets = websockets;
		memcpy(a->digest, s->ca_digest, sizeof(a->digest));
	}
	a->endpoints++;
	return a;
}

/* ---- endpoints ---- */

static void endpoint_free(struct endpoint *endpoint)
{
	anchors_release(endpoint->anchors);
	free(endpoint->shown);
	free(endpoint->host);
	free(endpoint->proxy_host);
	secret_free(&endpoint->proxy_login);
	free(endpoint);
}

struct endpoint *endpoint_new(struct endpoints *all, const struct endpoint_settings *s,
			      const char **why)
{
	struct anchors *anchors = anchors_get(all, s, why);

	if (!anchors)
		return NULL;
	struct endpoint *endpoint = mem_zalloc(sizeof(*endpoint));
	endpoint->anchors = anchors;
	endpoint->shown = mem_strdup(s->shown);
	endpoint->host = mem_strdup(s->conn.host);
	endpoint->proxy_host = s->conn.proxy_host ? mem_strdup(s->conn.proxy_host) : NULL;
	endpoint->proxy_login = s->conn.proxy_login ? secret_dup(s->conn.proxy_login) : NULL;
	endpoint->shared = (struct conn_shared){.base = all->base,
						.websockets = anchors->websockets,
						.settings = s->conn,
						.stats = all->stats,
						.memory = &endpoint->memory};
	endpoint->shared.settings.host = endpoint->host;
	endpoint->shared.settings.proxy_host = endpoint->proxy_host;
	endpoint->shared.settings.proxy_login = endpoint->proxy_login;
	return endpoint;
}

/* Frees it in the next turn, if it has no user: a connection that has just ended may be among the
 * callers, and still use what endpoints share. */
static void retire(struct endpoints *all, struct endpoint *endpoint)
{
	if (endpoint == all->present || endpoint->connections)
		return;
	LIST_INSERT_HEAD(&all->retired, endpoint, of_retired);
	timer_next_turn(all->reap);
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
	struct endpoints *all = arg;
	struct endpoint *endpoint;

	(void)fd;
	(void)what;
	while ((endpoint = LIST_FIRST(&all->retired))) {
		LIST_REMOVE(endpoint, of_retired);
		endpoint_free(endpoint);
	}
}

struct endpoint *endpoint_take(struct endpoints *all)
{
	all->present->connections++;
	return all->present;
}

void endpoint_leave(struct endpoints *all, struct endpoint *endpoint)
{
	endpoint->connections--;
	retire(all, endpoint);
}

/* ---- the present endpoint ---- */

void endpoints_set(struct endpoints *all, struct endpoint *endpoint)
{
	struct endpoint *former = all->present;

	all->present = endpoint;
	if (former)
		retire(all, former);
}

void endpoint_set_times(struct endpoint *endpoint, const struct conn_settings *settings)
{
	endpoint->shared.settings.connect_timeout_ms = settings->connect_timeout_ms;
	endpoint->shared.settings.keepalive_ms = settings->keepalive_ms;
	endpoint->shared.settings.max_message = settings->max_message;
}

void endpoints_init(struct endpoints *all, struct event_base *base, struct stats *stats)
{
	*all = (struct endpoints){.base = base, .stats = stats};
	LIST_INIT(&all->retired);
	all->reap = timer_new(base, on_reap, all);
}

void endpoints_fini(struct endpoints *all)
{
	on_reap(-1, 0, all);
	if (all->present)
		endpoint_free(all->present);
	event_free(all->reap);
}
