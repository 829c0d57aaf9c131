#include "requests/unsettled.h"

#include <string.h>

bool unsettled_give_up(struct unsettled *u, const struct pending *p)
{
	bool full = u->n == UNSETTLED_MAX;

	if (!p->peer || !p->key_hash || request_op_is_read(p->op))
		return false; /* no later request for it, or no effect */
	if (full)
		memmove(&u->writes[0], &u->writes[1], --u->n * sizeof(u->writes[0]));
	u->writes[u->n++] =
		(struct unsettled_write){p->key_hash, p->inflight.wire_id, p->inflight.connection};
	return full;
}

bool unsettled_over(struct unsettled *u, uint64_t wire_id, uint32_t connection)
{
	size_t left = 0, before = u->n;

	for (size_t i = 0; i < before; i++) {
		const struct unsettled_write *w = &u->writes[i];
		if (w->wire_id != wire_id && w->connection != connection)
			u->writes[left++] = *w;
	}
	u->n = left;
	return left < before;
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
