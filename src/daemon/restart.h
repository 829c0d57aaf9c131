/* restart.h - SIGUSR2: the program that stands at our path now takes our place in this process, and
 * our listening sockets with it, so that they never go away.
 *
 * First that program is asked whether it would start: it runs beside us with -t and our arguments.
 * If it says no, or nothing within ten seconds, nothing has happened but some lines in the log.
 * Else the owner ends as at SIGTERM, but keeps its listening sockets, and calls restart_now().
 *
 * The sockets travel as sd_listen_fds(3) describes it (LISTEN_FDS). HPKVD_OWN_SOCKET beside it
 * names the path of the first one, if we have made it (socketpath.h): the next program removes it
 * in the end. Key and URL of the environment were wiped from there when we started. The URL is
 * put back; the key goes through a pipe, whose number is in HPKVD_KEY_FD: it is in no environment,
 * and no file.
 *
 * The process keeps its number, its parent, and what its supervisor knows of it. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

enum { RESTART_SOCKETS_MAX = 16 };

struct restart_program {
	const char *path;  /* absolute, found before anything was replaced; NULL: unknown */
	char *const *argv; /* as we were started */
	const struct config_environment *environment;
};

/* Finds the path: argv[0] if it is absolute and the program that runs, else that of /proc/self/exe.
 * To be freed; NULL: neither. */
char *restart_path(const char *argv0);

/* The question whether the program would start. ok: it would; else why is a phrase. Never called
 * from within restart_ask(). */
struct restart_question;
typedef void restart_answer(void *owner, bool ok, const char *why);
struct restart_question *restart_ask(struct event_base *base, const struct restart_program *program,
				     restart_answer *answer, void *owner);
void restart_ask_free(struct restart_question *q); /* NULL will do; ends the other program */

/* Becomes the program; if it can't be run, the one that runs already, anew. own_socket: of
 * socketpath_hand_over() for the first socket, or NULL. Returns only when both fail, with -errno;
 * the sockets are the caller's still. Each has a name for LISTEN_FDNAMES. All else that is open is
 * close-on-exec. Signals that the program handles are blocked until it does. */
struct restart_socket {
	int fd;
	const char *name;
};
int restart_now(const struct restart_program *program, const char *own_socket,
		const struct restart_socket *sockets, size_t n);
