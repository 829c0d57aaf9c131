#include "clients/identities.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

enum { GROUPS_MAX_BYTES = 65536 * sizeof(gid_t) };

void identities_init(struct identities *ids)
{
	*ids = (struct identities){0};
	identities_renew(ids);
}

void identities_fini(struct identities *ids)
{
	free(ids->groups);
}

void identities_renew(struct identities *ids)
{
	ids->nobody = overflow_ids_ids();
}

/* Returns the number of the supplementary groups. There may be 65,536 of them, but rarely are many.
 */
static size_t ask_groups(struct identities *ids, int fd)
{
	socklen_t size = ids->size;
	int err;

	while ((err = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, ids->groups, &size)) < 0 &&
	       errno == ERANGE && size > ids->size && size <= GROUPS_MAX_BYTES) {
		ids->groups = mem_resize(ids->groups, size);
		ids->size = size;
	}
	if (err == 0)
		return size / sizeof(gid_t);
	if (!ids->failed)
		log_warning("can't find out the supplementary groups of clients (%s): access rules "
			    "see their first group only",
			    strerror(errno));
	ids->failed = true;
	return 0;
}

struct peer_identity identities_ask(struct identities *ids, int fd)
{
	struct ucred who;
	socklen_t size = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 || who.uid == (uid_t)-1)
		return (struct peer_identity){.uid = (uid_t)-1, .gid = (gid_t)-1};
	size_t n = ask_groups(ids, fd);
	return (struct peer_identity){.known = true,
				      .pid = who.pid,
				      .uid = who.uid,
				      .gid = who.gid,
				      .groups = ids->groups,
				      .n_groups = n};
}

struct peer_identity identities_nameable(struct identities *ids, struct peer_identity who)
{
	size_t n = 0;

	if (who.uid == ids->nobody.uid)
		who.uid = (uid_t)-1;
	if (who.gid == ids->nobody.gid)
		who.gid = (gid_t)-1;
	for (size_t i = 0; i < who.n_groups; i++) {
		if (ids->groups[i] != ids->nobody.gid)
			ids->groups[n++] = ids->groups[i];
	}
	who.n_groups = n;
	return who;
}
