#include "pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "visible.h"

/* The service's names for "that is too long", or for anything that it does not take. */
static bool is_too_long(const struct hpkv_answer *a)
{
	return a->result == HPKV_REFUSED && !*a->reason &&
	       (a->code == 400 || a->code == 413 || a->code == 414 || a->code == 431);
}

static struct hpkv_bytes bytes_of(const struct pages_place *place)
{
	return (struct hpkv_bytes){place->p, place->n};
}

static void set_place(struct pages_place *place, struct hpkv_bytes key)
{
	char *p = mem_strndup(key.p, key.n);

	free(place->p);
	*place = (struct pages_place){p, key.n};
}

static int order(struct hpkv_bytes a, struct hpkv_bytes b)
{
	int difference = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return difference ? difference : (a.n > b.n) - (a.n < b.n);
}

/* Behind all that begins with the prefix. It begins with it as well, so that an access rule for
 * prefix* allows it. */
static void end_behind_prefix(struct pages *p, size_t most)
{
	char *end = mem_alloc(most);
	size_t n = hpkv_key_last((struct hpkv_bytes){p->to.p, p->prefix_n}, most, end);

	set_place(&p->to, (struct hpkv_bytes){end, n});
	free(end);
}

/* The end of the range was refused: the next shorter one, which still has room for two characters,
 * for one, for a part of one. false: there is none. */
static bool end_sooner(struct pages *p)
{
	static const size_t rooms[] = {8, 4, 3, 2, 1, 0};

	for (unsigned i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
		size_t most = p->prefix_n + rooms[i];
		if (most > 0 && most < p->to.n) {
			end_behind_prefix(p, most);
			return true;
		}
	}
	return false;
}

/* How the place behind the last key is named. */
enum way {
	WAY_NUL,    /* the key and a NUL, if that is no longer than keys may be */
	WAY_ONE,    /* a NUL is nothing that this service takes in a key */
	WAY_RAISED, /* no key may be longer than this one */
	WAY_N
};

/* The next page's beginning; false: that is behind the end. */
static bool go_on(struct pages *p, enum way way)
{
	struct hpkv_bytes last = bytes_of(&p->last);
	size_t most = way != WAY_RAISED && last.n < HPKV_KEY_MAX ? HPKV_KEY_MAX : last.n;
	char *next = mem_alloc(most);
	size_t n = hpkv_key_after(last, most, next);

	if (way == WAY_ONE && n == last.n + 1)
		next[last.n] = '\1';
	set_place(&p->from, (struct hpkv_bytes){next, n});
	free(next);
	return n > 0 && order(bytes_of(&p->from), bytes_of(&p->to)) <= 0;
}

void pages_of_range(struct pages *p, struct hpkv *h, struct hpkv_bytes from, struct hpkv_bytes to)
{
	*p = (struct pages){.hpkv = h, .prefix_n = to.n};
	set_place(&p->from, from);
	set_place(&p->to, to);
}

void pages_of_prefix(struct pages *p, struct hpkv *h, struct hpkv_bytes prefix)
{
	/* No key is empty, so that is not where a range may begin. */
	pages_of_range(p, h, prefix.n ? prefix : (struct hpkv_bytes){"\0", 1},
		       prefix.n ? prefix : (struct hpkv_bytes){"", 0});
	if (p->prefix_n < HPKV_KEY_MAX)
		end_behind_prefix(p, HPKV_KEY_MAX);
}

bool pages_skip(struct pages *p, struct hpkv_bytes key)
{
	set_place(&p->last, key);
	p->ended = !go_on(p, WAY_NUL);
	return !p->ended;
}

/* The page is good, and leads to no other. */
static void get_stuck(struct pages *p, const char *why)
{
	snprintf(p->why, sizeof(p->why), "%s", why);
	p->stuck = (struct hpkv_answer){
		.result = HPKV_REFUSED, .error = p->why, .reason = "", .retry_after_ms = -1};
}

static void find_next(struct pages *p, const struct hpkv_answer *page)
{
	char why[PAGES_WHY_MAX];

	if (!page->n_records) {
		get_stuck(p, "the service says that there are more records, but returns none");
		return;
	}
	struct hpkv_bytes key = page->records[page->n_records - 1].key;
	if (order(key, bytes_of(&p->from)) < 0) {
		snprintf(why, sizeof(why),
			 "the service returns %s again, which is before the requested start",
			 visible_name(key));
		get_stuck(p, why);
		return;
	}
	pages_skip(p, key);
}

bool pages_question(const struct pages *p, unsigned limit, struct hpkv_request *q)
{
	if (p->ended)
		return false;
	*q = (struct hpkv_request){.op = HPKV_RANGE,
				   .key = bytes_of(&p->from),
				   .end_key = bytes_of(&p->to),
				   .limit = limit};
	return true;
}

int pages_answer(struct pages *p, const struct hpkv_answer *answer)
{
	if (answer->result) {
		bool another = is_too_long(answer) &&
			       (p->last.p ? ++p->way < WAY_N && go_on(p, (enum way)p->way)
					  : end_sooner(p));
		return another ? 0 : -1;
	}
	p->way = WAY_NUL;
	if (answer->truncated)
		find_next(p, answer);
	else
		p->ended = true;
	return 1;
}

int pages_next(struct pages *p, unsigned limit, const struct hpkv_answer **page)
{
	struct hpkv_request q;
	int got = 0;

	if (p->stuck.result) {
		*page = &p->stuck;
		return -1;
	}
	while (got == 0 && pages_question(p, limit, &q)) {
		hpkv_call(p->hpkv, &q, page);
		got = pages_answer(p, *page);
	}
	return got;
}

void pages_end(struct pages *p)
{
	free(p->from.p);
	free(p->to.p);
	free(p->last.p);
	*p = (struct pages){0};
}
