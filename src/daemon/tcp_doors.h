/* tcp_doors.h - the listening TCP sockets for HTTP: those of http_address, or those that the
 * service manager has passed.
 *
 * On a reload they are changed in two steps, so that all of the new settings are in force or none:
 * tcp_doors_prepare() opens those that are new, and tcp_doors_commit() closes those that are not
 * wanted any more, or tcp_doors_undo() those that are new. Connections stay. */
#pragma once

#include <event2/event.h>

#include "clients/listener.h"
#include "codec/stats.h"
#include "config/config.h"
#include "daemon/restart.h"

struct tcp_doors;

struct tcp_doors *tcp_doors_new(struct event_base *base, const struct listener_ops *ops,
				void *owner, struct stats *stats);
void tcp_doors_free(struct tcp_doors *t); /* NULL: nothing */

/* A socket that was passed; those of http_address are not opened then. */
void tcp_doors_adopt(struct tcp_doors *t, int fd);

/* A socket of our own, of a daemon in whose place we are (restart.h). */
void tcp_doors_inherit(struct tcp_doors *t, int fd);
/* Gives up the sockets, for the program that takes our place: n at most; returns how many. */
size_t tcp_doors_hand_over(struct tcp_doors *t, struct restart_socket *out, size_t n);

/* 0, or -errno, which is logged; then nothing has changed. */
int tcp_doors_prepare(struct tcp_doors *t, const struct config *config);
void tcp_doors_commit(struct tcp_doors *t);
void tcp_doors_undo(struct tcp_doors *t);

/* As listener_resume(), of all. */
void tcp_doors_resume(struct tcp_doors *t);
/* Appends " and ADDRESS" for each. */
void tcp_doors_names(const struct tcp_doors *t, struct buf *out);
