/* server.h - listens on the loopback interface and passes each connection's events to ws.h and
 * rest.h.
 *
 * The event loop of libwebsockets runs everything in one thread. */
#pragma once

#include "service.h"

struct server;

/* Creates a server. NULL: it failed, and the reason was printed on stderr. */
struct server *server_new(struct service *sv);
void server_free(struct server *server);

int server_port(const struct server *server);

/* Serves until server_stop(), which a signal handler may call. */
int server_run(struct server *server);
void server_stop(struct server *server);
