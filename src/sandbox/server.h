/* server.h - listens on the loopback interface and gives each connection to conn.h: all in
 * one thread, in a libevent loop. */
#pragma once

#include "service.h"

struct server;

/* NULL, with the reason on stderr. */
struct server *server_new(struct service *sv);
void server_free(struct server *server);

int server_port(const struct server *server);

/* Serves until SIGTERM or SIGINT. -1: the loop has failed. */
int server_run(struct server *server);
