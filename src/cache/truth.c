#include "cache/truth.h"

#include "codec/notification.h"

void truth_init(struct truth *t, uint64_t seed)
{
	const struct json_value null = {.type = JSON_NULL};

	*t = (struct truth){.seed = seed, .nothing = notification_value_hash(&null, seed)};
}

void truth_doubt(struct truth *t, struct entries *es, struct entry *e)
{
	entries_clear(es, e);
	e->changed = ++t->tick;
	e->told = 0;
}

bool truth_tell(struct truth *t, struct entries *es, struct entry *e, uint64_t seen, uint64_t hash)
{
	bool other = e->told && e->told != hash;
	bool newer = (int32_t)((uint32_t)seen - e->told_at) > 0;
	bool holds = truth_stands(t, seen) && e->changed < seen && !e->fences && (!other || newer);

	if (other) {
		entries_clear(es, e);
		e->changed = holds ? seen : ++t->tick; /* what earlier reads bring is older */
	}
	truth_believed(t, e, hash);
	return holds;
}

enum truth_page truth_page(struct truth *t, struct entries *es, struct entry *e, uint64_t seen,
			   uint64_t hash)
{
	if (!truth_stands(t, seen) || e->changed >= seen || e->fences)
		return TRUTH_PAGE_OLD;
	if (e->state != ENTRY_EMPTY && e->told == hash) {
		truth_believed(t, e, hash);
		return TRUTH_PAGE_SAME;
	}
	if (e->state == ENTRY_EMPTY && (!e->told || e->told == hash))
		return TRUTH_PAGE_BELIEVE;
	truth_doubt(t, es, e);
	return TRUTH_PAGE_DOUBT;
}
