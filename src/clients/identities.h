/* identities.h - who has opened a connection to the Unix socket, as the kernel recorded it then.
 *
 * The kernel keeps that for as long as the socket is open, so it is asked each time it is needed.
 * Owns the room for the supplementary groups of the one that was asked for last. */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/overflow_ids.h"
#include "requests/peer.h"

struct identities {
	struct overflow_ids nobody;
	gid_t *groups;  /* owned */
	socklen_t size; /* of groups, in bytes */
	bool failed;    /* the kernel does not tell groups, and this was logged */
};

void identities_init(struct identities *ids);
void identities_fini(struct identities *ids);

/* Reads again which ids stand for those without a number. */
void identities_renew(struct identities *ids);

/* Its groups are valid until the next call. Of who is not known uid and gid are -1. */
struct peer_identity identities_ask(struct identities *ids, int fd);

/* Of the identity that identities_ask() has returned last: the ids that stand for users and groups
 * without a number of their own (overflow_ids.h) become -1 or are left out, so that no rule can
 * name them. */
struct peer_identity identities_nameable(struct identities *ids, struct peer_identity who);
