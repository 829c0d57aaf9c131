#include "requests/unsettled.h"

#include <string.h>

static void drop(struct unsettled *e, size_t i)
{
	e->n--;
	memmove(&e->overdue[i], &e->overdue[i + 1], (e->n - i) * sizeof(e->overdue[0]));
}

bool unsettled_give_up(struct unsettled *e, const struct pending *p)
{
	bool full = e->n == OVERDUE_MAX;

	if (!p->peer || !p->key_hash || request_op_is_read(p->op))
		return false; /* nobody will ask after it, or it has no effect */
	if (full)
		drop(e, 0);
	e->overdue[e->n++] =
		(struct overdue){p->key_hash, p->inflight.wire_id, p->inflight.connection};
	return full;
}

bool unsettled_answered(struct unsettled *e, uint64_t wire_id)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->overdue[i].wire_id == wire_id) {
			drop(e, i);
			return true;
		}
	}
	return false;
}

bool unsettled_lane_gone(struct unsettled *e, uint32_t connection)
{
	size_t before = e->n;

	for (size_t i = e->n; i-- > 0;) {
		if (e->overdue[i].connection == connection)
			drop(e, i);
	}
	return e->n < before;
}

bool unsettled_is_on(const struct unsettled *e, uint32_t connection)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->overdue[i].connection == connection)
			return true;
	}
	return false;
}

bool unsettled_has(const struct unsettled *e, uint64_t key_hash, uint32_t connection)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->overdue[i].key_hash == key_hash && e->overdue[i].connection != connection)
			return true;
	}
	return false;
}
