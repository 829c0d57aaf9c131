/* listen_fds.h - the descriptors that another program passes to this one when it starts it: the
 * protocol of sd_listen_fds(3). A service manager passes them, and a hpkvd that starts anew
 * (restart.h).
 *
 * LISTEN_PID is the process that they are for, LISTEN_FDS their number, from descriptor 3 on, and
 * LISTEN_FDNAMES their names with colons between them. The protocol is that small, and builds
 * without libsystemd restart as well, so it is read here and not there. */
#pragma once

#include <stdbool.h>

enum { LISTEN_FDS_START = 3, LISTEN_FDS_MAX = 64, LISTEN_FDS_NAME_MAX = 255 };

struct listen_fds {
	int n; /* descriptors LISTEN_FDS_START … LISTEN_FDS_START + n - 1 */
	char names[LISTEN_FDS_MAX][LISTEN_FDS_NAME_MAX + 1]; /* empty: it has none */
};

/* The number of descriptors that are for this process; they are close-on-exec. Takes the variables
 * out of the environment. -errno: the variables make no sense, or the descriptors are not open. */
int listen_fds_take(struct listen_fds *out);

/* Is it a listening Unix stream socket? */
bool listen_fds_is_unix_listener(int fd);
