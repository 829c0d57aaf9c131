/* overflow_ids.h - the numbers that stand for users and groups without a number.
 *
 * In a user namespace the kernel shows all users that it does not know there by one number (mostly
 * 65534, which is also that of the user nobody), and all groups by another. Who has such a number
 * may be anybody, so nothing is granted to it. */
#pragma once

#include <sys/types.h>

struct overflow_ids {
	uid_t uid;
	gid_t gid;
};

/* As /proc/sys/kernel says now; 65534 where it can't be read. */
struct overflow_ids overflow_ids_ids(void);
