#include "upstream/endpoint.h"

#include <stdlib.h>
#include <string.h>

#include "transport/websocket.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/timer.h"

/* What endpoints with the same trust anchors share: making it takes a while, and memory. */
struct anchors {
	struct websocket_context *links;
	unsigned char digest[CA_DIGEST_SIZE];
	unsigned endpoints;
};

/* ---- trust anchors ---- */

static void anchors_release(struct anchors *a)
{
	if (--a->endpoints)
		return;
	websocket_context_free(a->links);
	free(a);
}

/* Those of the present place, if they are the same. NULL, with a reason, when the CA file can't be
 * used. */
static struct anchors *anchors_get(struct endpoints *p, const struct endpoint_settings *s,
				   const char **why)
{
	struct anchors *a = p->present ? p->present->anchors : NULL;

	if (!a || memcmp(a->digest, s->ca_digest, sizeof(a->digest)) != 0) {
		struct websocket_context *links = websocket_context_new(p->base, s->ca_file, why);
		if (!links)
			return NULL;
		a = mem_zalloc(sizeof(*a));
		a->links = links;
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
	endpoint->host = mem_strdup(s->way.host);
	endpoint->proxy_host = s->way.proxy_host ? mem_strdup(s->way.proxy_host) : NULL;
	endpoint->proxy_login = s->way.proxy_login ? secret_dup(s->way.proxy_login) : NULL;
	endpoint->conn = (struct conn_place){.base = p->base,
					     .links = anchors->links,
					     .way = s->way,
					     .stats = p->stats,
					     .memory = &endpoint->memory};
	endpoint->conn.way.host = endpoint->host;
	endpoint->conn.way.proxy_host = endpoint->proxy_host;
	endpoint->conn.way.proxy_login = endpoint->proxy_login;
	return endpoint;
}

/* Frees it, if nobody needs it any more: not at once, since the link that has just ended may
 * be among the callers, and goes on with what it has in common with others. */
static void retire(struct endpoints *p, struct endpoint *endpoint)
{
	if (endpoint == p->present || endpoint->connections)
		return;
	LIST_INSERT_HEAD(&p->retired, endpoint, of_retired);
	timer_next_turn(p->bury);
}

static void on_bury(evutil_socket_t fd, short what, void *arg)
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

void endpoint_set_times(struct endpoint *endpoint, const struct conn_way *way)
{
	endpoint->conn.way.connect_timeout_ms = way->connect_timeout_ms;
	endpoint->conn.way.keepalive_ms = way->keepalive_ms;
	endpoint->conn.way.max_message = way->max_message;
}

void endpoints_init(struct endpoints *p, struct event_base *base, struct stats *stats)
{
	*p = (struct endpoints){.base = base, .stats = stats};
	LIST_INIT(&p->retired);
	p->bury = timer_new(base, on_bury, p);
}

void endpoints_fini(struct endpoints *p)
{
	on_bury(-1, 0, p);
	if (p->present)
		endpoint_free(p->present);
	event_free(p->bury);
}
