/* listener.h - the Unix-domain socket that local programs connect to.
 *
 * Binds the path with its mode and group right from the start, replaces the socket that a dead
 * daemon has left, never one that a living daemon answers on, and removes its own when it ends. Or
 * adopts a socket that somebody else has bound and will go on listening with: its path, mode and
 * group are not touched.
 *
 * Accepting pauses when the process is out of descriptors and goes on when there are some again; it
 * neither spins nor gives up. */
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
	/* May another one be accepted? False: the limit of open files is near; then those who come
	 * wait in the backlog until listener_resume(). */
	bool (*has_room)(void *owner);
	/* The socket is connected, non-blocking and close-on-exec, and the callee's from now on. */
	void (*accepted)(void *owner, int fd);
};

/* 0, or -errno, which it has logged with the path and what to do. */
int listener_new(struct event_base *base, const struct listener_settings *settings,
		 const struct listener_ops *ops, void *owner, struct stats *stats,
		 struct listener **out);

/* Takes over a listening socket (activation.h); the descriptor is the listener's from now on. */
struct listener *listener_adopt(struct event_base *base, int fd, const struct listener_ops *ops,
				void *owner, struct stats *stats);

/* Where clients find it, to show. */
const char *listener_path(const struct listener *l);

/* Was it adopted? Then its path, mode and group are somebody else's to change. */
bool listener_is_adopted(const struct listener *l);

/* Is the socket at this path, and ours? Somebody may have removed it. */
bool listener_is_at(const struct listener *l, const char *path);

/* As socketpath.h says, of its path. */
void listener_step_aside(struct listener *l);
void listener_step_back(struct listener *l);

/* Mode and group of the socket that is there become these. 0, or -errno, which it has logged. */
int listener_set_access(struct listener *l, const struct listener_settings *settings);

/* A descriptor was closed: if accepting has paused, for whatever reason, it goes on. */
void listener_resume(struct listener *l);

/* Closes the socket and removes its path, if we have made it and it is still ours. */
void listener_free(struct listener *l);

/* The same, but whoever has connected is accepted before, as far as there is room. NULL will do for
 * both. */
void listener_retire(struct listener *l);
