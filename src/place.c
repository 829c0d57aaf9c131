#include "place.h"

#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "mem.h"
#include "secret.h"
#include "timer.h"

/* What places with the same trust anchors share: making it takes a while, and memory. */
struct anchors {
	struct link_context *links;
	unsigned char digest[CA_DIGEST_SIZE];
	unsigned places;
};

/* ---- trust anchors ---- */

static void anchors_release(struct anchors *a)
{
	if (--a->places)
		return;
	link_context_free(a->links);
	free(a);
}

/* Those of the present place, if they are the same. NULL, with a reason, when the CA file can't be
 * used. */
static struct anchors *anchors_get(struct places *p, const struct place_settings *s,
				   const char **why)
{
	struct anchors *a = p->present ? p->present->anchors : NULL;

	if (!a || memcmp(a->digest, s->ca_digest, sizeof(a->digest)) != 0) {
		struct link_context *links = link_context_new(p->base, s->ca_file, why);
		if (!links)
			return NULL;
		a = mem_zalloc(sizeof(*a));
		a->links = links;
		memcpy(a->digest, s->ca_digest, sizeof(a->digest));
	}
	a->places++;
	return a;
}

/* ---- a place comes and goes ---- */

static void place_free(struct place *place)
{
	anchors_release(place->anchors);
	free(place->shown);
	free(place->host);
	free(place->proxy_host);
	secret_free(&place->proxy_login);
	free(place);
}

struct place *place_new(struct places *p, const struct place_settings *s, const char **why)
{
	struct anchors *anchors = anchors_get(p, s, why);

	if (!anchors)
		return NULL;
	struct place *place = mem_zalloc(sizeof(*place));
	place->anchors = anchors;
	place->shown = mem_strdup(s->shown);
	place->host = mem_strdup(s->way.host);
	place->proxy_host = s->way.proxy_host ? mem_strdup(s->way.proxy_host) : NULL;
	place->proxy_login = s->way.proxy_login ? secret_dup(s->way.proxy_login) : NULL;
	place->conn = (struct conn_place){.base = p->base,
					  .links = anchors->links,
					  .way = s->way,
					  .stats = p->stats,
					  .memory = &place->memory};
	place->conn.way.host = place->host;
	place->conn.way.proxy_host = place->proxy_host;
	place->conn.way.proxy_login = place->proxy_login;
	return place;
}

/* Frees it, if nobody needs it any more: not at once, since the link that has just ended may
 * be among the callers, and goes on with what it has in common with others. */
static void retire(struct places *p, struct place *place)
{
	if (place == p->present || place->lanes)
		return;
	LIST_INSERT_HEAD(&p->retired, place, of_retired);
	timer_next_turn(p->bury);
}

static void on_bury(evutil_socket_t fd, short what, void *arg)
{
	struct places *p = arg;
	struct place *place;

	(void)fd;
	(void)what;
	while ((place = LIST_FIRST(&p->retired))) {
		LIST_REMOVE(place, of_retired);
		place_free(place);
	}
}

struct place *place_take(struct places *p)
{
	p->present->lanes++;
	return p->present;
}

void place_leave(struct places *p, struct place *place)
{
	place->lanes--;
	retire(p, place);
}

/* ---- the present one ---- */

void places_set(struct places *p, struct place *place)
{
	struct place *former = p->present;

	p->present = place;
	if (former)
		retire(p, former);
}

void place_set_times(struct place *place, const struct conn_way *way)
{
	place->conn.way.connect_timeout_ms = way->connect_timeout_ms;
	place->conn.way.keepalive_ms = way->keepalive_ms;
	place->conn.way.max_message = way->max_message;
}

void places_init(struct places *p, struct event_base *base, struct stats *stats)
{
	*p = (struct places){.base = base, .stats = stats};
	LIST_INIT(&p->retired);
	p->bury = timer_new(base, on_bury, p);
}

void places_fini(struct places *p)
{
	on_bury(-1, 0, p);
	if (p->present)
		place_free(p->present);
	event_free(p->bury);
}
