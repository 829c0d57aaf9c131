#include "cache/mirror.h"

#include <errno.h>
#include <string.h>

#include "cache/range.h"
#include "codec/json.h"
#include "codec/notification.h"

enum {
	RETRY_MS =
		1000, /* until a page that got no usable answer is asked for again, then doubling */
	RETRY_MAX_MS = 60000,
	REFUSALS_MAX = 5, /* of pages by the service, in a row, until the mirror is given up */
	CODE_OK = 200,
	CODE_REFUSED = 400, /* and up to: */
	CODE_FAILED = 500,  /* such answers pass */
	CODE_CONFLICT = 409,
	PASSES = 2, /* in max_age */
	SPARE = 5,  /* of a pass, the part that is left free for delays */
};

/* ---- the ends ---- */

static size_t first_of_last_character(struct span text)
{
	size_t i = text.n - 1;

	while (i && ((unsigned char)text.p[i] & 0xc0) == 0x80)
		i--;
	return i;
}

static unsigned long decode(const unsigned char *p, size_t n)
{
	unsigned long c = n == 1 ? p[0] : p[0] & (0x7fU >> n);

	for (size_t i = 1; i < n; i++)
		c = c << 6 | (p[i] & 0x3fU);
	return c;
}

static void encode(struct buf *out, unsigned long c)
{
	unsigned bytes = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	unsigned char p[4];

	for (unsigned i = bytes; i-- > 1; c >>= 6)
		p[i] = (unsigned char)(0x80 | (c & 0x3f));
	p[0] = (unsigned char)(bytes == 1 ? c : (0xf00U >> bytes & 0xff) | c);
	buf_add(out, p, bytes);
}

/* What comes behind all keys with this beginning: its last character made one greater. */
static void find_last(struct buf *last, struct span prefix)
{
	enum { GREATEST = 0x10ffff, SURROGATES = 0xd800, BEHIND_SURROGATES = 0xe000 };

	while (prefix.n) {
		size_t at = first_of_last_character(prefix);
		unsigned long c = decode((const unsigned char *)prefix.p + at, prefix.n - at);
		prefix.n = at;
		if (c >= GREATEST)
			continue;
		buf_add(last, prefix.p, prefix.n);
		encode(last, c + 1 == SURROGATES ? BEHIND_SURROGATES : c + 1);
		return;
	}
	encode(last, GREATEST);
}

void mirror_init(struct mirror *m, struct entries *es, struct truth *t,
		 const struct mirror_limits *limits, uint8_t origin, struct span prefix)
{
	*m = (struct mirror){.entries = es,
			     .truth = t,
			     .limits = limits,
			     .origin = origin,
			     .range_max = MIRROR_RANGE_MAX};
	buf_add(&m->prefix, prefix.p, prefix.n);
	buf_add(&m->first, prefix.n ? prefix.p : "", prefix.n ? prefix.n : 1);
	find_last(&m->last, prefix);
	TAILQ_INIT(&m->unknown);
}

void mirror_fini(struct mirror *m)
{
	mirror_stop(m);
	buf_release(&m->prefix);
	buf_release(&m->first);
	buf_release(&m->last);
	buf_release(&m->from);
}

bool mirror_has(const struct mirror *m, struct span key)
{
	struct span prefix = buf_span(&m->prefix);

	return key.n >= prefix.n && (!prefix.n || memcmp(key.p, prefix.p, prefix.n) == 0) &&
	       treap_compare(key, buf_span(&m->first)) >= 0 &&
	       treap_compare(key, buf_span(&m->last)) <= 0;
}

/* ---- states ---- */

/* A page is to be sent, the first of a pass if none was since the last whole one. */
static void begin_pass(struct mirror *m, int64_t now)
{
	buf_release(&m->from);
	buf_add(&m->from, buf_span(&m->first).p, buf_len(&m->first));
	m->began = now;
	m->pages = 0;
}

void mirror_start(struct mirror *m, int64_t now)
{
	if (m->state == MIRROR_GIVEN_UP)
		return;
	mirror_stop(m);
	m->state = MIRROR_LOADING;
	m->due = now;
	m->failures = m->refusals = 0;
	m->range_max = MIRROR_RANGE_MAX;
	m->limit = MIRROR_PAGE;
	begin_pass(m, now);
}

static void unlink_all(struct mirror *m)
{
	struct entry *e;

	while ((e = TAILQ_FIRST(&m->unknown)))
		mirror_unlink(m, e);
}

void mirror_stop(struct mirror *m)
{
	unlink_all(m);
	m->asking = false; /* what comes of the page is not asked about */
	if (m->state != MIRROR_GIVEN_UP)
		m->state = MIRROR_OUT;
}

void mirror_give_up(struct mirror *m)
{
	mirror_stop(m);
	m->state = MIRROR_GIVEN_UP;
}

void mirror_try_again(struct mirror *m)
{
	if (m->state == MIRROR_GIVEN_UP)
		m->state = MIRROR_OUT;
}

/* ---- what is not known ---- */

void mirror_unknown(struct mirror *m, struct entry *e)
{
	if (e->linked || e->fences || e->state != ENTRY_EMPTY || !mirror_is_active(m))
		return;
	e->linked = true;
	TAILQ_INSERT_TAIL(&m->unknown, e, link);
}

void mirror_unlink(struct mirror *m, struct entry *e)
{
	if (!e->linked)
		return;
	e->linked = false;
	TAILQ_REMOVE(&m->unknown, e, link);
}

/* ---- pages ---- */

bool mirror_wants_page(const struct mirror *m, int64_t now)
{
	return mirror_is_active(m) && !m->asking && m->due <= now;
}

void mirror_asked(struct mirror *m, uint64_t page, int64_t now)
{
	if (!buf_len(&m->from))
		begin_pass(m, now);
	m->asking = true;
	m->page = page;
}

/* One answer, being compared with what is known. */
struct page {
	struct mirror *m;
	uint64_t seen;
	int64_t now;
	bool begun; /* entries up to p->key were compared; else none was yet */
	struct buf key;
};

void mirror_missing(struct mirror *m, struct entry *e, int64_t now)
{
	bool recent = truth_is_answered(e, now, m->limits->keep_missing_ms);

	mirror_unlink(m, e);
	if (!entry_is_busy(e) && !m->asking && !recent) {
		entries_drop(m->entries, e);
		return;
	}
	entries_set(m->entries, e, ENTRY_MISSING, shape_ref(m->entries->shapes.missing),
		    (struct span){0});
	truth_believed(m->truth, e, m->truth->nothing);
}

static void page_missing(struct page *p, struct entry *e)
{
	struct mirror *m = p->m;

	switch (truth_page(m->truth, m->entries, e, p->seen, m->truth->nothing)) {
	case TRUTH_PAGE_SAME:
	case TRUTH_PAGE_BELIEVE:
		e->read_at = p->now;
		mirror_missing(m, e, p->now);
		break;
	case TRUTH_PAGE_DOUBT:
		mirror_unknown(m, e);
		break;
	case TRUTH_PAGE_OLD:
	case TRUTH_PAGE_N:
		break;
	}
}

/* The value as it is kept: a line. */
static void believe(struct mirror *m, struct entry *e, const struct json_value *value,
		    uint64_t hash)
{
	mirror_unlink(m, e);
	entries_set(m->entries, e, ENTRY_FOUND, shape_ref(m->entries->shapes.found), value->text);
	wire_flatten(e->value, e->value_n);
	truth_believed(m->truth, e, hash);
}

static void page_found(struct page *p, struct entry *e, const struct json_value *value)
{
	struct mirror *m = p->m;
	uint64_t hash = notification_value_hash(value, m->truth->seed);

	switch (truth_page(m->truth, m->entries, e, p->seen, hash)) {
	case TRUTH_PAGE_BELIEVE:
		believe(m, e, value, hash);
		/* fall through */
	case TRUTH_PAGE_SAME:
		e->read_at = p->now;
		truth_answered(e, p->now);
		break;
	case TRUTH_PAGE_DOUBT:
		mirror_unknown(m, e);
		break;
	case TRUTH_PAGE_OLD:
	case TRUTH_PAGE_N:
		break;
	}
}

static void page_step(struct page *p, struct span key)
{
	buf_take(&p->key, buf_len(&p->key));
	buf_add(&p->key, key.p, key.n);
	p->begun = true;
}

/* The next entry to compare that comes before the key (or is of it). */
static struct entry *page_next(struct page *p, struct span key, bool inclusive)
{
	struct entry *e = p->begun ? entries_behind(p->m->entries, buf_span(&p->key))
				   : entries_from(p->m->entries, buf_span(&p->m->from));
	int order = e ? treap_compare(entry_key(e), key) : 1;

	return order < (inclusive ? 1 : 0) ? e : NULL;
}

/* Entries up to this key that the page does not have. */
static void page_skip(struct page *p, struct span key, bool inclusive)
{
	struct entry *e;

	while ((e = page_next(p, key, inclusive))) {
		page_step(p, entry_key(e));
		if (mirror_has(p->m, entry_key(e)))
			page_missing(p, e);
	}
}

static bool has_room(struct mirror *m, size_t size)
{
	size_t memory = m->limits->memory;

	return size <= memory && entries_shrink(m->entries, memory - size);
}

/* More than there is of it already. */
static size_t size_of_record(const struct entry *e, struct span key, struct span value)
{
	if (!e)
		return key.n + value.n + ENTRY_COUNTED;
	return value.n > e->value_n ? value.n - e->value_n : 0;
}

static const char *page_record(struct page *p, struct span key, const struct json_value *value)
{
	struct mirror *m = p->m;

	if (!mirror_has(m, key) || key.n > ENTRY_KEY_MAX ||
	    treap_compare(key, buf_span(&m->from)) < 0)
		return span_equal(key, buf_span(&m->last)) ? NULL : "a record is out of its bounds";
	page_skip(p, key, false);
	struct entry *e = page_next(p, key, true);
	if (!has_room(m, size_of_record(e, key, value->text)))
		return "too big for [cache] memory";
	if (!e)
		e = entries_make(m->entries, key, notification_bytes_hash(key, m->truth->seed),
				 m->origin);
	page_step(p, key);
	page_found(p, e, value);
	return NULL;
}

static const char *page_records(struct page *p, struct range_reader *r)
{
	const char *why = NULL;
	int more;

	while (!why && (more = range_next(r)) > 0)
		why = page_record(p, buf_span(&r->key), &r->value);
	if (!why && more < 0)
		why = "records are not in the order of their keys";
	if (!why && r->truncated && !r->n)
		why = "a page is truncated and has no record";
	return why;
}

/* Pages are spread over a pass, but not while the mirror is loaded. */
static int64_t spacing(const struct mirror *m)
{
	int64_t pass = m->limits->max_age_ms / PASSES;

	return m->state == MIRROR_WHOLE ? (pass - pass / SPARE) / (m->pages_before + 1) : 0;
}

void mirror_hurry(struct mirror *m, int64_t now)
{
	int64_t due =
		buf_len(&m->from) ? now + spacing(m) : m->began + m->limits->max_age_ms / PASSES;

	if (m->state == MIRROR_WHOLE && due < m->due)
		m->due = due;
}

static void end_pass(struct mirror *m)
{
	m->confirmed = m->began;
	m->pages_before = m->pages;
	m->state = MIRROR_WHOLE;
	m->due = m->began + m->limits->max_age_ms / PASSES;
	buf_release(&m->from);
}

static void go_on(struct mirror *m, const struct range_reader *r, int64_t now)
{
	m->pages++;
	m->failures = m->refusals = 0;
	m->answered_at = now;
	if (r->has_truncated && r->truncated && r->n < m->limit && r->n < m->range_max)
		m->range_max = r->n;
	if (!r->truncated) {
		end_pass(m);
		return;
	}
	buf_release(&m->from);
	buf_add(&m->from, buf_span(&r->key).p, buf_len(&r->key));
	buf_add(&m->from, "", 1);
	m->due += spacing(m);
	if (m->due < now)
		m->due = now;
}

static const char *take_page(struct mirror *m, const struct wire_frame *answer, uint64_t seen,
			     int64_t now)
{
	struct page p = {.m = m, .seen = seen, .now = now};
	struct range_reader r;
	const char *why = "an answer has no records";

	if (range_begin(&r, answer->text)) {
		why = page_records(&p, &r);
		r.truncated |= !r.has_truncated && r.n; /* then an empty page is the last */
	}
	if (!why) {
		page_skip(&p, r.truncated ? buf_span(&r.key) : buf_span(&m->last), true);
		go_on(m, &r, now);
	}
	buf_release(&p.key);
	range_end(&r);
	return why;
}

static void pause(struct mirror *m, int64_t now)
{
	unsigned many = m->failures < REFUSALS_MAX ? 0 : m->failures - REFUSALS_MAX;
	int64_t ms = (int64_t)RETRY_MS << (many < 10 ? many : 10);

	m->due = now + (ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS);
	m->failures++;
}

/* The answer to a page is an error. */
static const char *not_answered(struct mirror *m, int code, int64_t now)
{
	bool refused = code >= CODE_REFUSED && code < CODE_FAILED && code != CODE_CONFLICT;

	pause(m, now);
	m->refusals = refused ? m->refusals + 1 : 0;
	return m->refusals >= REFUSALS_MAX ? "the service refuses its pages" : NULL;
}

const char *mirror_page(struct mirror *m, const struct wire_frame *answer, uint64_t seen,
			int64_t now)
{
	const char *why = NULL;

	m->asking = false;
	if (!mirror_is_active(m))
		return NULL;
	if (answer->code != CODE_OK)
		why = not_answered(m, answer->code, now);
	else if (truth_stands(m->truth, seen)) /* else it may have missed changes */
		why = take_page(m, answer, seen, now);
	if (why)
		mirror_give_up(m);
	return why;
}

void mirror_no_page(struct mirror *m, bool sent, int64_t now)
{
	m->asking = false;
	pause(m, now);
	if (sent)
		m->limit = m->limit / 2 > MIRROR_PAGE_MIN ? m->limit / 2 : MIRROR_PAGE_MIN;
}

/* ---- answers ---- */

void mirror_answered(struct mirror *m, struct span from, struct span to, int64_t now)
{
	if (treap_compare(from, buf_span(&m->last)) <= 0 &&
	    treap_compare(to, buf_span(&m->first)) >= 0)
		m->answered_at = now;
}

bool mirror_is_sure(const struct mirror *m, int64_t now)
{
	return m->state == MIRROR_WHOLE && now - m->confirmed <= m->limits->max_age_ms;
}

static bool is_usable(const struct mirror *m, const struct entry *e, int64_t now)
{
	return e->state != ENTRY_EMPTY && !e->fences && now - e->read_at <= m->limits->max_age_ms;
}

static void add_record(struct buf *out, const struct entry *e, bool first)
{
	buf_add(out, first ? "{\"key\":" : ",{\"key\":", first ? 7 : 8);
	json_add_string(out, entry_key(e));
	buf_add(out, ",\"value\":", 9);
	buf_add(out, e->value, e->value_n);
	buf_add(out, "}", 1);
}

bool mirror_range(struct mirror *m, struct span from, struct span to, size_t limit, int64_t now,
		  struct buf *out)
{
	size_t before = buf_len(out), n = 0, most = limit < m->range_max ? limit : m->range_max;
	bool truncated = false;

	if (!mirror_is_sure(m, now) || !mirror_has(m, from) || !mirror_has(m, to) ||
	    treap_compare(from, to) > 0)
		return false;
	buf_addf(out, "{\"code\":200,\"records\":[");
	for (struct entry *e = entries_from(m->entries, from); e && !truncated;
	     e = entries_next(m->entries, e)) {
		if (treap_compare(entry_key(e), to) > 0)
			break;
		if (!is_usable(m, e, now)) {
			buf_cut(out, before);
			return false;
		}
		if (e->state == ENTRY_MISSING)
			continue;
		truncated = n == most;
		if (!truncated)
			add_record(out, e, n++ == 0);
	}
	buf_addf(out, "],\"count\":%zu,\"truncated\":%s", n, truncated ? "true" : "false");
	return true;
}
