/* server.h - listens on the loopback interface and hands each connection's events to ws.h and
 * rest.h.
 *
 * libwebsockets' own loop runs it all in one thread. */
#pragma once

#include "service.h"

struct server;

/* NULL, with the reason on stderr. */
struct server *server_new(struct service *sv);
void server_free(struct server *server);

int server_port(const struct server *server);

/* Serves until server_stop(), which a signal handler may call. */
int server_run(struct server *server);
void server_stop(struct server *server);
