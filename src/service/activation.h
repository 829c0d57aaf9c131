/* activation.h - the socket that the service manager has opened, and keeps open when the daemon
 * ends (socket activation: sd_listen_fds(3), systemd.socket(5)).
 *
 * Takes exactly one listening Unix stream socket. Anything else is an error, since the author of
 * the socket unit expects it to be served. */
#pragma once

/* Returns a descriptor, close-on-exec, which is the caller's; -ENOENT: none was passed; another
 * -errno, logged. Call it once: it takes the variables out of the environment. */
int activation_take(void);

/* The text that names that socket, if a hpkvd in whose place we are has made it (socketpath.h):
 * then it is not the service manager's, but ours. To be freed; NULL: it is not. Answers once. */
char *activation_own_socket(void);
