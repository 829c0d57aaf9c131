/* overflow_ids.h - the ids that stand for users and groups that a user namespace does not map.
 *
 * In a user namespace the kernel shows all unmapped users by one number (mostly 65534, which is
 * also the user nobody), and all unmapped groups by another. A process with such a number may be
 * anybody's, so nothing is granted to it. */
#pragma once

#include <sys/types.h>

struct overflow_ids {
	uid_t uid;
	gid_t gid;
};

/* From /proc/sys/kernel; 65534 where that can't be read. */
struct overflow_ids overflow_ids_ids(void);
