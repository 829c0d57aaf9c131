#include "daemon/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"

enum { LOOKED_AT_MAX = 4096 }; /* a shell or supervisor passes low numbers */

unsigned descriptors_open(void)
{
	struct rlimit limit = {.rlim_cur = LOOKED_AT_MAX};
	unsigned n = 0;

	getrlimit(RLIMIT_NOFILE, &limit);
	for (int fd = 0; fd < LOOKED_AT_MAX && (rlim_t)fd < limit.rlim_cur; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Returns the limit that holds then. */
static rlim_t raise_limit(struct rlimit limit, rlim_t want)
{
	rlim_t before = limit.rlim_cur;

	if (before >= want)
		return before;
	limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
		return limit.rlim_cur;
	log_warning("can't raise the limit of open files: %s", strerror(errno));
	return before;
}

/* left: descriptors that are not open yet. */
static rlim_t room_for_clients(rlim_t left)
{
	rlim_t own = left / 5;

	if (own > DESCRIPTORS_OWN)
		own = DESCRIPTORS_OWN;
	if (own < DESCRIPTORS_OWN_MIN)
		own = DESCRIPTORS_OWN_MIN;
	return left - own;
}

long long descriptors_reserve(unsigned max_clients, unsigned open)
{
	struct rlimit limit;
	rlim_t want = (rlim_t)open + DESCRIPTORS_OWN + max_clients;
	rlim_t least = (rlim_t)open + DESCRIPTORS_OWN_MIN + DESCRIPTORS_CLIENTS_MIN;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return UINT_MAX;
	rlim_t have = raise_limit(limit, want);
	if (have >= want)
		return UINT_MAX; /* clients_adopt() refuses with a word */
	if (have < least) {
		log_error(
			"the limit of open files is %llu, but hpkvd needs %llu: %u for itself, %u "
			"that were open when it started, and %u for clients: raise LimitNOFILE= "
			"or ulimit -n",
			(unsigned long long)have, (unsigned long long)least, DESCRIPTORS_OWN_MIN,
			open, DESCRIPTORS_CLIENTS_MIN);
		return -1;
	}
	rlim_t room = room_for_clients(have - open);
	log_notice("max_clients is %u, but the limit of open files is %llu: there is room for %llu "
		   "clients, then accepting pauses",
		   max_clients, (unsigned long long)have, (unsigned long long)room);
	return (long long)room;
}
