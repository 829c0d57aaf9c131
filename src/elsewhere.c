#include "elsewhere.h"

#include <string.h>

static void drop(struct elsewhere *e, size_t i)
{
	e->n--;
	memmove(&e->overdue[i], &e->overdue[i + 1], (e->n - i) * sizeof(e->overdue[0]));
}

bool elsewhere_give_up(struct elsewhere *e, const struct pending *p)
{
	bool full = e->n == OVERDUE_MAX;

	if (!p->peer || !p->key_hash || request_op_is_read(p->op))
		return false; /* nobody will ask after it, or it has no effect */
	if (full)
		drop(e, 0);
	e->overdue[e->n++] = (struct overdue){p->key_hash, p->wire_id, p->lane};
	return full;
}

bool elsewhere_answered(struct elsewhere *e, uint64_t wire_id)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->overdue[i].wire_id == wire_id) {
			drop(e, i);
			return true;
		}
	}
	return false;
}

bool elsewhere_lane_gone(struct elsewhere *e, uint32_t lane)
{
	size_t before = e->n;

	for (size_t i = e->n; i-- > 0;) {
		if (e->overdue[i].lane == lane)
			drop(e, i);
	}
	return e->n < before;
}

bool elsewhere_is_on(const struct elsewhere *e, uint32_t lane)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->overdue[i].lane == lane)
			return true;
	}
	return false;
}

bool elsewhere_has(const struct elsewhere *e, uint64_t key_hash, uint32_t lane)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->overdue[i].key_hash == key_hash && e->overdue[i].lane != lane)
			return true;
	}
	return false;
}
