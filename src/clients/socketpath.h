/* socketpath.h - a listening Unix socket at a path.
 *
 * The path has its mode and group right from the start. The socket that a dead daemon has left is
 * replaced, never one that a living daemon answers on. In the end the path is removed, if it is
 * still the one that was made. Whoever may write to the folder may put something else in its place
 * at any moment, also while it is made: nothing but the socket is ever given to a group or opened
 * up. Accepting is the owner's business. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum { SOCKETPATH_BACKLOG = 4096 }; /* connections that wait to be accepted, at most */

struct socketpath_settings {
	const char *path; /* absolute */
	mode_t mode;
	gid_t group;         /* (gid_t)-1: left as it is */
	const char *setting; /* "[listen] socket": where to choose another one */
	bool may_wait;       /* half a second, for whoever has locked the folder: nothing else is
				being done yet */
};

struct socketpath {
	char *path;  /* owned; NULL: there is none, or it was removed */
	char *aside; /* owned; where it is while another one is to have its path; NULL: there */
	dev_t dev;   /* of the path that we have made, to touch no other */
	ino_t ino;
	gid_t own_group; /* the one that it was made with */
};

/* The descriptor, which listens, non-blocking and close-on-exec; or -errno, which it has logged
 * with the path and what to do. *out is set on success. */
int socketpath_open(const struct socketpath_settings *settings, struct socketpath *out);

/* Is it this path, and still ours? Somebody may have removed it. */
bool socketpath_is(const struct socketpath *s, const char *path);

/* Mode and group of the socket that is there become these; without a group it gets back the one
 * that it was made with. 0, or -errno, which it has logged: then they are what they were. */
int socketpath_set_access(const struct socketpath *s, mode_t mode, gid_t group);

/* Another socket of this process is to have the path: this one is found beside it until it is
 * removed, or until socketpath_step_back(). If that can't be done it stays where it is. Once it has
 * stepped aside it is at no path. */
void socketpath_step_aside(struct socketpath *s);
void socketpath_step_back(struct socketpath *s); /* does nothing if it has not */

/* Removes the path, before the descriptor is closed; does nothing the second time. */
void socketpath_remove(struct socketpath *s);
