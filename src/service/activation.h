/* activation.h - the socket that the service manager has opened for us, and keeps when we end
 * (socket activation: sd_listen_fds(3), systemd.socket(5)).
 *
 * Takes exactly one listening Unix stream socket. Anything else that is passed is an error rather
 * than something to ignore: whoever wrote the socket unit expects it to be served. Without
 * libsystemd a passed socket is refused. */
#pragma once

/* A descriptor, close-on-exec and the caller's from now on; -ENOENT: none was passed; another
 * -errno, which it has logged. The environment forgets about it, so this answers once. */
int activation_take(void);
