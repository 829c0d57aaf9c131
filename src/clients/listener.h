/* listener.h - a socket that local programs connect to.
 *
 * Makes the socket at its path (socketpath.h) and removes the path at the end. Or adopts a socket
 * that the service manager has bound and will keep: its path, mode and group are not touched.
 *
 * Accepting pauses when the process is out of descriptors, and resumes when there are some again;
 * it neither spins nor gives up. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <sys/types.h>

#include "codec/stats.h"

struct listener;

struct listener_settings {
	const char *path;
	mode_t mode;
	gid_t group;   /* (gid_t)-1: left as it is */
	bool may_wait; /* socketpath.h */
};

struct listener_ops {
	/* May another connection be accepted? False: the limit of open files is near. New
	 * connections wait in the backlog until listener_resume(). */
	bool (*has_room)(void *owner);
	/* A connected socket, non-blocking and close-on-exec. The callee owns it. */
	void (*accepted)(void *owner, int fd);
};

/* 0, or -errno, logged with the path and a remedy. */
int listener_new(struct event_base *base, const struct listener_settings *settings,
		 const struct listener_ops *ops, void *owner, struct stats *stats,
		 struct listener **out);

/* Takes over a listening socket (activation.h, tcpsocket.h), on a path or on TCP; the descriptor is
 * the listener's from now on. */
struct listener *listener_adopt(struct event_base *base, int fd, const struct listener_ops *ops,
				void *owner, struct stats *stats);

/* The same of one that the program in whose place we are has made: path, mode and group are ours to
 * change, and to remove. own: the text that it left. NULL: the socket is not at its path any more;
 * the descriptor is closed. */
struct listener *listener_inherit(struct event_base *base, int fd, const char *own,
				  const struct listener_ops *ops, void *owner, struct stats *stats);

/* Accepts no more, but goes on listening, for the program that takes our place: the descriptor,
 * which is the caller's. *own: the text for that program (socketpath.h), to be freed; NULL: the
 * socket was adopted. The listener is gone. */
int listener_hand_over(struct listener *l, char **own);

/* Where clients find it, to show. */
const char *listener_path(const struct listener *l);

/* Was the socket adopted? Its path, mode and group are then not ours to change. */
bool listener_is_adopted(const struct listener *l);

/* Is our socket at this path? It may have been removed. */
bool listener_is_at(const struct listener *l, const char *path);

/* See socketpath.h. */
void listener_step_aside(struct listener *l);
void listener_step_back(struct listener *l);

/* Sets mode and group of the socket. 0, or -errno, logged. */
int listener_set_access(struct listener *l, const struct listener_settings *settings);

/* A descriptor was closed: ends a pause of accepting, whatever its reason. */
void listener_resume(struct listener *l);

/* Closes the socket. Removes its path, if it is our own. */
void listener_free(struct listener *l);

/* The same after accepting the connections in the backlog, as far as there is room. Both take
 * NULL. */
void listener_retire(struct listener *l);
