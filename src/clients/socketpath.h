/* socketpath.h - a listening Unix socket at a path.
 *
 * The path has its mode and group from the start. A stale socket, left by a dead daemon, is
 * replaced; a socket that a process listens on never is. At the end the path is removed, if it is
 * still the one that was made here. Anybody who may write to the folder can put another file there
 * at any moment, so only the socket itself is ever given to a group or made accessible. Accepting
 * is left to the owner. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum { SOCKETPATH_BACKLOG = 4096 }; /* length of the backlog */

struct socketpath_settings {
	const char *path; /* absolute */
	mode_t mode;
	gid_t group;         /* (gid_t)-1: left as it is */
	const char *setting; /* the setting that chooses the path, for errors: "[listen] socket" */
	bool may_wait; /* up to half a second for a lock of the folder; only while the daemon does
			  nothing else */
};

struct socketpath {
	char *path;  /* owned; NULL: there is none, or it was removed */
	char *aside; /* owned; its path while another socket has its own; NULL: it has not stepped
			aside */
	dev_t dev;   /* identify the file that was made here */
	ino_t ino;
	gid_t own_group; /* the group that it was made with */
};

/* Returns the listening descriptor, non-blocking and close-on-exec; or -errno, logged with the path
 * and a remedy. *out is set on success. */
int socketpath_open(const struct socketpath_settings *settings, struct socketpath *out);

/* The socket was made by the program in whose place we are (restart.h), which left this text of
 * socketpath_hand_over(): it is ours now. False: it is not at its path any more. */
bool socketpath_inherit(const char *text, struct socketpath *out);

/* Is it this path, and still ours? Somebody may have removed it. */
bool socketpath_is(const struct socketpath *s, const char *path);

/* Sets mode and group; (gid_t)-1: the group that it was made with. 0, or -errno, logged; then
 * nothing has changed. */
int socketpath_set_access(const struct socketpath *s, mode_t mode, gid_t group);

/* Makes room for another socket of this process: moves this one beside its path, until it is
 * removed or socketpath_step_back() is called. If that fails it stays at its path. A socket that
 * has stepped aside is at no path for socketpath_is(). */
void socketpath_step_aside(struct socketpath *s);
void socketpath_step_back(struct socketpath *s); /* nothing if it has not stepped aside */

/* Removes the path. Call it before the descriptor is closed; a second call does nothing. */
void socketpath_remove(struct socketpath *s);
/* Leaves the path where it is, for the program that takes our place. Returns the text that names
 * path, file and group to it; to be freed. */
char *socketpath_hand_over(struct socketpath *s);
