/* ws_door.h - who may open a WebSocket: the request for an upgrade at /ws, checked (RFC 6455, 4.2).
 *
 *   ?token=   a token that was made here: its connection has its subscriptions, which are live when
 *             the 101 leaves (timeoutMs= is their time), its access pattern, and the rights of whom
 *             it was made for. A bad one is refused with 403.
 *   else      as for any other request, its rights are those of its local key, or on the Unix
 *             socket of its user (http.h)
 *
 * There are no extensions, so nothing is compressed, and no subprotocols: a client that offers some
 * gets none. */
#pragma once

#include "gateway/http.h"
#include "gateway/ws_speech.h"

struct ws_door_ops {
	/* What a token grants, and until when. 0, or -errno with why set: a sentence without
	 * secrets. */
	int (*open_token)(void *owner, struct span token, struct token_grant *grant,
			  int64_t *left_ms, const char **why);
	/* As http_offer::admit. */
	int (*admit)(void *owner, struct peer *peer, struct speech *next, const char **why);
};

struct ws_door {
	struct ws_settings settings;
	const struct ws_door_ops *ops;
	void *owner; /* of HTTP's settings as well, for http calls admit() with that */
};

/* For http_ops::upgrade. */
void ws_door_upgrade(const struct ws_door *door, const struct http_request *r,
		     struct http_offer *offer);
