/* pages.h - a range page by page, each page beginning behind the last key of the one before.
 *
 * A place between two keys is named by a key, which must not be longer than keys may be. That is
 * HPKV_KEY_MAX as far as is known. A service that takes only shorter keys refuses the place; then a
 * shorter name of it is tried.
 *
 * pages_next() asks for a page and waits for it, while events are handed on. In an event loop,
 * pages_question() and pages_answer() do the same. */
#pragma once

#include <stdbool.h>

#include <hpkv.h>

enum {
	PAGES_MOST = 1000, /* records: the service's most */
	PAGES_WHY_MAX = 200,
};

struct pages_place {
	char *p; /* owned */
	size_t n;
};

struct pages {
	struct hpkv *hpkv;
	struct pages_place from, to; /* of the next page */
	struct pages_place last;     /* the last key that came; p NULL before that */
	size_t prefix_n;          /* of to, what the keys begin with; the rest may be shortened */
	unsigned way;             /* how the place behind last is named: pages.c */
	bool ended;               /* the last page has come */
	struct hpkv_answer stuck; /* .result: the service leads nowhere; its error is: */
	char why[PAGES_WHY_MAX];
};

/* The records from one key to another, both included. */
void pages_of_range(struct pages *p, struct hpkv *h, struct hpkv_bytes from, struct hpkv_bytes to);

/* All records whose keys begin with prefix, which may be empty. */
void pages_of_prefix(struct pages *p, struct hpkv *h, struct hpkv_bytes prefix);

/* Begins behind this key instead. false: nothing can follow it in this range. */
bool pages_skip(struct pages *p, struct hpkv_bytes key);

/* The next page, with at most so many records. 1: it is there. 0: there are no more. -1: it can't
 * be had, *page says why. *page is valid until the next blocking call with the handle. */
int pages_next(struct pages *p, unsigned limit, const struct hpkv_answer **page);

/* The request for the next page; it points into p. false: there are no more pages. */
bool pages_question(const struct pages *p, unsigned limit, struct hpkv_request *q);

/* Its answer. 1: it is the page. 0: ask again, for the place has another name now. -1: it can't be
 * had, the answer says why; it may be asked for once more. */
int pages_answer(struct pages *p, const struct hpkv_answer *answer);

/* The last key of the page before, for people; p NULL: there was none. */
static inline struct hpkv_bytes pages_at(const struct pages *p)
{
	return (struct hpkv_bytes){p->last.p, p->last.n};
}

void pages_end(struct pages *p);
