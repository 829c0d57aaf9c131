#include "requests/unsettled.h"

#include <string.h>

static void drop(struct unsettled *u, size_t i)
{
	u->n--;
	memmove(&u->writes[i], &u->writes[i + 1], (u->n - i) * sizeof(u->writes[0]));
}

bool unsettled_give_up(struct unsettled *u, const struct pending *p)
{
	bool full = u->n == UNSETTLED_MAX;

	if (!p->peer || !p->key_hash || request_op_is_read(p->op))
		return false; /* no later request for it, or no effect */
	if (full)
		drop(u, 0);
	u->writes[u->n++] =
		(struct unsettled_write){p->key_hash, p->inflight.wire_id, p->inflight.connection};
	return full;
}

bool unsettled_answered(struct unsettled *u, uint64_t wire_id)
{
	size_t before = u->n;

	for (size_t i = u->n; i-- > 0;) { /* several, if they were combined */
		if (u->writes[i].wire_id == wire_id)
			drop(u, i);
	}
	return u->n < before;
}

bool unsettled_connection_lost(struct unsettled *u, uint32_t connection)
{
	size_t before = u->n;

	for (size_t i = u->n; i-- > 0;) {
		if (u->writes[i].connection == connection)
			drop(u, i);
	}
	return u->n < before;
}

bool unsettled_is_on(const struct unsettled *u, uint32_t connection)
{
	for (size_t i = 0; i < u->n; i++) {
		if (u->writes[i].connection == connection)
			return true;
	}
	return false;
}

bool unsettled_has(const struct unsettled *u, uint64_t key_hash, uint32_t connection)
{
	for (size_t i = 0; i < u->n; i++) {
		if (u->writes[i].key_hash == key_hash && u->writes[i].connection != connection)
			return true;
	}
	return false;
}
