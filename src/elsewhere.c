#include "elsewhere.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"

void elsewhere_fini(struct elsewhere *e)
{
	free(e->left);
	e->left = NULL;
}

/* ---- writes that were given up ---- */

static void look_elsewhere(struct elsewhere *e)
{
	e->overdue_elsewhere = false;
	for (size_t i = 0; i < e->n_overdue; i++)
		e->overdue_elsewhere |= e->overdue[i].lane != e->lane;
}

static void overdue_drop(struct elsewhere *e, size_t i)
{
	e->n_overdue--;
	memmove(&e->overdue[i], &e->overdue[i + 1], (e->n_overdue - i) * sizeof(e->overdue[0]));
}

bool elsewhere_give_up(struct elsewhere *e, const struct pending *p)
{
	bool full = e->n_overdue == OVERDUE_MAX;

	if (!p->peer || !p->key_hash || request_op_is_read(p->op))
		return false; /* nobody will ask after it, or it has no effect */
	if (full)
		overdue_drop(e, 0);
	e->overdue[e->n_overdue++] = (struct overdue){p->key_hash, p->wire_id, p->lane};
	look_elsewhere(e);
	return full;
}

/* wire_id: 0: all of the lane. */
static bool overdue_end(struct elsewhere *e, uint32_t lane, uint64_t wire_id)
{
	size_t before = e->n_overdue;

	for (size_t i = e->n_overdue; i-- > 0;) {
		if (wire_id ? e->overdue[i].wire_id == wire_id : e->overdue[i].lane == lane)
			overdue_drop(e, i);
	}
	if (e->n_overdue == before)
		return false;
	look_elsewhere(e);
	return true;
}

bool elsewhere_answered(struct elsewhere *e, uint64_t wire_id)
{
	return wire_id && overdue_end(e, 0, wire_id);
}

bool elsewhere_lane_gone(struct elsewhere *e, uint32_t lane)
{
	return overdue_end(e, lane, 0);
}

bool elsewhere_has_overdue(const struct elsewhere *e, uint64_t key_hash)
{
	for (size_t i = 0; e->overdue_elsewhere && i < e->n_overdue; i++) {
		if (e->overdue[i].key_hash == key_hash && e->overdue[i].lane != e->lane)
			return true;
	}
	return false;
}

/* ---- lanes that were left ---- */

bool elsewhere_landed(struct elsewhere *e, uint32_t lane)
{
	for (size_t i = 0; i < e->n_left; i++) {
		if (e->left[i].lane != lane)
			continue;
		if (--e->left[i].n)
			return false;
		e->left[i] = e->left[--e->n_left];
		return true;
	}
	return false;
}

unsigned elsewhere_count(const struct elsewhere *e, uint32_t lane, unsigned all)
{
	unsigned left = 0;

	for (size_t i = 0; i < e->n_left; i++) {
		if (e->left[i].lane == lane)
			return e->left[i].n;
		left += e->left[i].n;
	}
	return lane == e->lane ? all - left : 0;
}

void elsewhere_begin(struct elsewhere *e, uint32_t lane)
{
	e->lane = lane;
}

void elsewhere_move(struct elsewhere *e, uint32_t lane, unsigned on_way)
{
	struct left_lane left = {e->lane, on_way};

	e->lane = lane;
	look_elsewhere(e);
	if (!on_way)
		return;
	e->left = mem_resize(e->left, (e->n_left + 1) * sizeof(*e->left));
	e->left[e->n_left++] = left;
}
