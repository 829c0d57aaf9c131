/* socketpath.h - a listening Unix socket at a path.
 *
 * The path has its mode and group right from the start. The socket that a dead daemon has left is
 * replaced, never one that a living daemon answers on. In the end the path is removed, if it is
 * still the one that was made. Accepting is the owner's business. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct socketpath_settings {
	const char *path; /* absolute */
	mode_t mode;
	gid_t group;         /* (gid_t)-1: left as it is */
	const char *setting; /* "[listen] socket": where to choose another one */
};

struct socketpath {
	char *path; /* owned; NULL: there is none, or it was removed */
	dev_t dev;  /* of the path that we have made, to remove no other */
	ino_t ino;
};

/* The descriptor, which listens, non-blocking and close-on-exec; or -errno, which it has logged
 * with the path and what to do. *out is set on success. */
int socketpath_open(const struct socketpath_settings *settings, struct socketpath *out);

/* Is it this path, and still ours? Somebody may have removed it. */
bool socketpath_is(const struct socketpath *s, const char *path);

/* Mode and group of the socket that is there become these. 0, or -errno, which it has logged. */
int socketpath_set_access(const struct socketpath *s, mode_t mode, gid_t group);

/* Removes the path, before the descriptor is closed; does nothing the second time. */
void socketpath_remove(struct socketpath *s);
