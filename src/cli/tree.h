/* tree.h - a directory that is exchanged as a whole.
 *
 * DIRECTORY is a symbolic link to a tree in a folder beside it:
 *
 *	DIRECTORY -> .DIRECTORY.hpkv/20261130T101500-1
 *
 * A new tree is written beside the present one, put on the disk, and then the link is exchanged by
 * rename(2). So a program that opens DIRECTORY sees one tree or the other, whenever this program or
 * the machine stops. An unfinished tree is removed at the next start. The folder is locked: one
 * process keeps a DIRECTORY.
 *
 * If somebody has removed or replaced the folder, the next tree makes a new one.
 *
 * The folder also notes that a command is due: tree_exchange() sets the note before the link is
 * exchanged, tree_done() removes it. So a command that was interrupted is known at the next start.
 *
 * Functions that fail print the reason, except tree_add_folders() and tree_add(). */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/span.h"

struct tree_options {
	mode_t mode;     /* of files; folders may be entered by those who may read */
	uid_t owner;     /* (uid_t)-1: whoever runs this */
	gid_t group;     /* the same */
	const char *who; /* the command, for messages */
};

struct tree {
	const struct tree_options *o;
	const char *path; /* DIRECTORY, as it was given */
	char *parent;     /* owned; the folder that it is in */
	char *name;       /* owned; its name there */
	char *box;        /* owned; ".NAME.hpkv" */
	int parent_fd, box_fd;
	char *fresh; /* owned; the name of the tree that is being written, or NULL */
	int fresh_fd;
	unsigned made;
};

/* Takes DIRECTORY, and removes what was left behind. */
bool tree_begin(struct tree *t, const char *path, const struct tree_options *o);

/* Begins a new tree. */
bool tree_make(struct tree *t);

/* Makes the folders of a file's name (filename.h) in the new tree. 0 or -errno. */
int tree_add_folders(struct tree *t, const char *name);

/* Writes a file of the new tree, whose folders are there. 0 or -errno. */
int tree_add(struct tree *t, const char *name, struct span value);

/* The path of the new tree; free it. */
char *tree_path(const struct tree *t);

/* The new tree is complete: gives it its modes and owner, and puts it on the disk. */
bool tree_finish(struct tree *t);

/* It becomes DIRECTORY, and the former tree is removed. due: a command is due afterwards. */
bool tree_exchange(struct tree *t, bool due);

/* Is a command due? It has run. */
bool tree_is_due(const struct tree *t);
void tree_done(const struct tree *t);

/* Is the present tree where it was put? false: somebody has removed or replaced it. Prints nothing.
 */
bool tree_is_there(const struct tree *t);

/* Removes the new tree, which is not wanted or can't be finished. */
void tree_discard(struct tree *t);

/* Does the present tree have this file? And how many files are there? -1: there is no tree. */
bool tree_has(const struct tree *t, const char *name, struct span value);
long tree_count(const struct tree *t);

void tree_end(struct tree *t);
