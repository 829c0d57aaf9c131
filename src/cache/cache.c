#include "cache/cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/glob.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/entry.h"
#include "cache/mirror.h"
#include "cache/range.h"
#include "cache/truth.h"
#include "codec/json.h"
#include "requests/key_order.h"
#include "requests/peer.h"

enum {
	CODE_OK = 200,
	CODE_NOT_FOUND = 404,
	SWEEP = 5000,    /* entries of a step */
	SWEEP_MS = 10,   /* between two steps */
	SLEPT_MS = 100,  /* the machine has slept if the clocks differ by more */
	RETRY_MS = 1000, /* until a subscription that was refused is tried again, doubling */
	RETRY_MAX_MS = 300000,
	SUBSCRIBE_MS = REQUEST_TIMEOUT_MAX_MS,
	LOOK_MAX = 256, /* unanswered requests of a client, for one of the same key */
	PATIENCE = 4,   /* times request_timeout: what a read of the cache's own may take */
	NAME_MAX = 64,  /* bytes of a pattern in a log line */
	PROGRESS = 100, /* pages of a mirror from one log line to the next */
	UNUSED_LINES_MAX = 65536, /* bytes of answers to the own peer's reads, which nobody reads */
};

/* A glob of the settings, and whether the service tells of what it matches. */
struct pattern {
	struct span text;
	bool exact;   /* without any * */
	bool asked;   /* a subscribe is on its way */
	bool held;    /* ... has succeeded */
	bool covered; /* changes of what it matches are told of */
	int64_t retry_at;
	unsigned refusals; /* in a row */
};

struct cache {
	struct cache_settings settings; /* but for keys and mirrors */
	const struct cache_ops *ops;
	void *owner;
	struct router *router;
	struct subscriptions *subscriptions;
	struct stats *stats;
	uint64_t seed;
	struct entries entries;
	struct truth truth;
	struct mirror_limits limits;
	struct pattern patterns[CACHE_PATTERNS_MAX]; /* the mirrors' first */
	struct mirror mirrors[CACHE_PATTERNS_MAX];
	size_t n_patterns, n_mirrors;
	bool elsewhere; /* requests go to where nothing is to be remembered of any more */
	bool stale;     /* the connection was lost, and what is remembered may be served, marked */
	bool stopped;
	int64_t lost_at, heard_at; /* boot clock, if stale */
	int64_t awake_at;          /* when the machine has last woken up; boot clock */
	int64_t age_now, age_of;   /* the boot clock, and the clock of `now` at which it was read */
	int64_t wake;              /* what wake_at was told last; -1: nothing */
	int64_t read_at;           /* no key is read again before */
	uint64_t patterns_at;      /* the tick at which they changed */
	const char *taking;        /* text of the notification that arrives, if it may be taken */
	uint64_t pages;            /* of mirrors, so far */
	unsigned reads;            /* of keys that are read again, on their way */
	unsigned failures;         /* of these, in a row */
	struct peer peer;
	struct buf line, name; /* an answer; a key, decoded */
};

static void wake_at(struct cache *c, int64_t at)
{
	if (c->wake >= 0 && c->wake <= at)
		return;
	c->wake = at;
	c->ops->wake_at(c->owner, at);
}

static void wake(struct cache *c)
{
	wake_at(c, c->ops->mono_ms());
}

/* By this clock is judged how old things are: the boot clock, which goes on during sleep. It costs
 * more than the clock of `now`, so it is read once for each value of that. */
static int64_t age_clock_at(struct cache *c, int64_t now)
{
	if (now != c->age_of) {
		int64_t boot = c->ops->boot_ms(), slept = boot - c->age_now - (now - c->age_of);
		c->age_now = boot;
		c->age_of = now;
		if (slept > SLEPT_MS) {
			c->awake_at = boot;
			wake(c); /* timers have stood still */
		}
	}
	return c->age_now;
}

static int64_t age_clock(struct cache *c)
{
	return age_clock_at(c, c->ops->mono_ms());
}

/* The time of `now` at which the clock of ages is so far. */
static int64_t time_of_age(struct cache *c, int64_t age, int64_t now)
{
	return now + age - age_clock_at(c, now);
}

/* ---- keys, and whose they are ---- */

static bool matches(const struct pattern *p, struct span key)
{
	return p->exact ? span_equal(p->text, key) : glob_matches(p->text, key);
}

static struct mirror *mirror_of(struct cache *c, struct span key)
{
	for (size_t i = 0; i < c->n_mirrors; i++) {
		if (mirror_has(&c->mirrors[i], key))
			return &c->mirrors[i];
	}
	return NULL;
}

static bool is_of_keys(const struct cache *c, struct span key)
{
	for (size_t i = c->n_mirrors; i < c->n_patterns; i++) {
		if (matches(&c->patterns[i], key))
			return true;
	}
	return false;
}

static bool is_ours(struct cache *c, struct span key)
{
	return key.n <= ENTRY_KEY_MAX && (mirror_of(c, key) || is_of_keys(c, key));
}

/* Are changes of the key told of? */
static bool is_covered(const struct cache *c, struct span key)
{
	for (size_t i = 0; i < c->n_patterns; i++) {
		if (c->patterns[i].covered && matches(&c->patterns[i], key))
			return true;
	}
	return false;
}

static uint8_t origin_of(void *owner, struct span key)
{
	struct cache *c = owner;
	const struct mirror *m = mirror_of(c, key);

	return m ? m->origin : ORIGIN_KEYS;
}

static struct mirror *mirror_of_entry(struct cache *c, const struct entry *e)
{
	return e->origin == ORIGIN_KEYS ? NULL : &c->mirrors[e->origin - ORIGIN_MIRROR];
}

/* The bytes of a string, valid until the next call. */
static struct span decoded(struct cache *c, const struct json_value *string)
{
	if (!string->escaped)
		return json_string_raw(string);
	buf_take(&c->name, buf_len(&c->name));
	buf_grew(&c->name, json_string_decode(string, buf_room(&c->name, string->text.n)));
	return buf_span(&c->name);
}

static struct entry *find(struct cache *c, struct span key)
{
	return entries_find(&c->entries, key, notification_bytes_hash(key, c->seed));
}

static struct entry *find_or_make(struct cache *c, struct span key)
{
	struct entry *e = find(c, key);

	return e ? e
		 : entries_make(&c->entries, key, notification_bytes_hash(key, c->seed),
				origin_of(c, key));
}

/* ---- what becomes of entries ---- */

static const char *shown(const struct pattern *p, char out[6 * NAME_MAX + 4])
{
	struct span text = p->text;
	bool long_one = text.n > NAME_MAX;

	text.n = long_one ? NAME_MAX : text.n;
	text.n = json_escapable(text);
	size_t n = json_escape(text, out);
	memcpy(out + n, long_one ? "..." : "", long_one ? 4 : 1);
	return out;
}

/* Its reads are asked of the service from now on. */
static void give_up(struct cache *c, struct mirror *m, const char *why)
{
	char name[6 * NAME_MAX + 4];

	mirror_give_up(m);
	log_warning("mirror \"%s\": %s; its reads are asked of the service until the settings are "
		    "read again",
		    shown(&c->patterns[m - c->mirrors], name), why);
	entries_forget_origin(&c->entries, m->origin);
	wake(c);
}

/* Makes the entries of the mirror (NULL: of `keys`) fit after a change. May free any. */
static void keep_within(struct cache *c, struct mirror *m)
{
	if (c->entries.bytes > c->settings.memory &&
	    !entries_shrink(&c->entries, c->settings.memory) && m && mirror_is_active(m))
		give_up(c, m, "too big for [cache] memory");
}

/* Nothing is believed of it: a mirror reads it again, once no write is under way; elsewhere it is
 * of no use, once no request needs it. May free it. */
static void settle(struct cache *c, struct entry *e)
{
	struct mirror *m = mirror_of_entry(c, e);

	if (m && mirror_is_active(m)) {
		if (e->state == ENTRY_MISSING) {
			mirror_missing(m, e, age_clock(c));
		} else if (e->fences) {
			mirror_unlink(m, e);
		} else if (e->state == ENTRY_EMPTY) {
			mirror_unknown(m, e);
			wake(c);
		}
	} else if (e->state == ENTRY_EMPTY && !entry_is_busy(e)) {
		entries_drop(&c->entries, e);
	}
}

/* May free it. */
static void doubt(struct cache *c, struct entry *e)
{
	c->stats->cache_invalidations += e->state != ENTRY_EMPTY;
	truth_doubt(&c->truth, &c->entries, e);
	settle(c, e);
}

/* In an active mirror, and only there, no entry means something. NULL: nothing is known of the key,
 * nor has to be. */
static struct entry *find_known(struct cache *c, struct span key)
{
	struct entry *e = find(c, key);
	struct mirror *m = e || key.n > ENTRY_KEY_MAX ? NULL : mirror_of(c, key);

	return m && mirror_is_active(m) ? find_or_make(c, key) : e;
}

static void doubt_key(struct cache *c, struct span key)
{
	struct entry *e = find_known(c, key);

	if (!e)
		return;
	struct mirror *m = mirror_of_entry(c, e);
	doubt(c, e);
	keep_within(c, m);
}

static void forget(struct cache *c)
{
	truth_bar(&c->truth);
	c->stats->cache_invalidations += c->entries.n;
	for (size_t i = 0; i < c->n_mirrors; i++)
		mirror_stop(&c->mirrors[i]);
	c->stale = false;
	entries_forget(&c->entries);
	wake(c);
}

/* All is forgotten, and mirrors that are covered are loaded anew. */
static void begin_anew(struct cache *c)
{
	forget(c);
	for (size_t i = 0; i < c->n_mirrors && c->truth.live; i++) {
		if (c->patterns[i].covered)
			mirror_start(&c->mirrors[i], age_clock(c));
	}
}

/* ---- requests ---- */

/* The request of a pending, whose body is an object's end; *text holds it. */
static bool parse(const struct pending *p, struct buf *text, struct request *request)
{
	struct request_fault fault;

	buf_add(text, "{", 1);
	buf_add(text, pending_body(p).p, pending_body(p).n);
	return request_parse(buf_span(text), request, &fault) == 0;
}

static struct entry *entry_of(const struct pending *p)
{
	return p->watch.entry;
}

/* A request of the cache's own peer, which is told of nothing. */
static bool is_own(const struct cache *c, const struct pending *p)
{
	return p->peer == &c->peer;
}

/* A write: from now on nothing is served of its key. */
static void on_taken(void *owner, struct pending *p)
{
	struct cache *c = owner;
	struct buf text = {0};
	struct request request;

	p->watched |= is_own(c, p);
	if (!request_op_is_read(p->op) && !p->watch.entry && parse(p, &text, &request) &&
	    is_ours(c, decoded(c, &request.key))) {
		struct entry *e = find_or_make(c, decoded(c, &request.key));
		e->fences++;
		p->watch.entry = e;
		p->watched = true;
		doubt(c, e);
	}
	buf_release(&text);
}

static void on_sent(void *owner, struct pending *p)
{
	struct cache *c = owner;
	struct buf text = {0};
	struct request request;

	p->watch.seen = truth_now(&c->truth);
	if (p->op == OP_GET && !p->watch.entry && parse(p, &text, &request) &&
	    is_ours(c, decoded(c, &request.key))) {
		struct entry *e = find_or_make(c, decoded(c, &request.key));
		e->readers++;
		p->watch.entry = e;
		p->watched = true;
	}
	buf_release(&text);
}

/* The mirror that waits for this page; NULL: none does any more. The messageId tells page and
 * mirror.
 */
static struct mirror *mirror_of_page(struct cache *c, const struct pending *p)
{
	uint64_t id = 0;

	for (size_t k = 0; k < p->id_len; k++)
		id = 10 * id + (uint64_t)(pending_id(p).p[k] - '0');
	struct mirror *m = &c->mirrors[id % CACHE_PATTERNS_MAX];
	return m < c->mirrors + c->n_mirrors && m->asking && m->page == id / CACHE_PATTERNS_MAX
		       ? m
		       : NULL;
}

static void believe(struct cache *c, struct entry *e, const struct wire_frame *frame)
{
	struct span value;
	struct mirror *m = mirror_of_entry(c, e);
	struct shape *shape = shape_of(&c->entries.shapes, frame, entry_key(e), &value);

	if (!shape)
		return;
	if (!m && e->key_n + value.n + ENTRY_COUNTED + shape_own_size(shape) > c->settings.memory) {
		shape_unref(&c->entries.shapes, shape); /* it would only end all others */
		return;
	}
	if (m)
		mirror_unlink(m, e);
	entries_set(&c->entries, e, frame->code == CODE_OK ? ENTRY_FOUND : ENTRY_MISSING, shape,
		    value);
	if (frame->newline)
		wire_flatten(e->value, e->value_n);
	keep_within(c, m);
}

/* Of a get that was sent before the patterns changed: its key may be ours now. */
static struct entry *entry_since(struct cache *c, const struct pending *p)
{
	struct buf text = {0};
	struct request request;
	struct entry *e = NULL;

	if (p->watch.seen < c->patterns_at && parse(p, &text, &request))
		e = find_known(c, decoded(c, &request.key));
	buf_release(&text);
	return e;
}

static void get_answered(struct cache *c, struct pending *p, const struct wire_frame *frame,
			 bool here)
{
	struct entry *e = entry_of(p) ? entry_of(p) : entry_since(c, p);
	bool found = frame->code == CODE_OK && frame->value.text.p;
	uint64_t hash = found ? notification_value_hash(&frame->value, c->seed) : c->truth.nothing;

	if (!e || (!found && frame->code != CODE_NOT_FOUND))
		return;
	entries_renew(&c->entries, e);
	struct mirror *mirror = mirror_of_entry(c, e);
	bool usable = here && !c->elsewhere && (!mirror || mirror_is_active(mirror)) &&
		      is_covered(c, entry_key(e));
	bool was = e->state != ENTRY_EMPTY;
	bool holds = truth_tell(&c->truth, &c->entries, e, p->watch.seen, hash);
	c->stats->cache_invalidations += was && e->state == ENTRY_EMPTY;
	truth_answered(e, age_clock(c));
	if (usable && holds) {
		e->read_at = age_clock(c);
		if (e->state == ENTRY_EMPTY)
			believe(c, e, frame);
	}
	if (!entry_of(p)) { /* sent before the barrier: it was not believed */
		settle(c, e);
		keep_within(c, mirror);
	}
}

/* One key of a range that a client is told. hash: of what it is told. */
static void range_tells(struct cache *c, struct entry *e, uint64_t seen, uint64_t hash, bool here)
{
	struct mirror *m = mirror_of_entry(c, e);
	bool was = e->state != ENTRY_EMPTY;
	bool holds = truth_tell(&c->truth, &c->entries, e, seen, hash);

	if (was && e->state == ENTRY_EMPTY)
		c->stats->cache_invalidations++;
	else if (was && holds && here && !c->elsewhere)
		e->read_at = age_clock(c);
	truth_answered(e, age_clock(c));
	settle(c, e);
	keep_within(c, m);
}

/* Entries from the first on that come before the end (or up to it) are not in the range. */
static void range_skips(struct cache *c, struct entry *e, struct span end, bool inclusive,
			uint64_t seen, bool here)
{
	struct buf at = {0};

	while (e && treap_compare(entry_key(e), end) < (inclusive ? 1 : 0)) {
		buf_take(&at, buf_len(&at));
		buf_add(&at, entry_key(e).p, entry_key(e).n);
		range_tells(c, e, seen, c->truth.nothing, here);
		e = entries_behind(&c->entries, buf_span(&at));
	}
	buf_release(&at);
}

static void range_answered(struct cache *c, const struct pending *p, struct span from,
			   struct span to, const struct wire_frame *frame, bool here)
{
	struct range_reader r;
	struct buf last = {0};
	bool any = false, usable = range_begin(&r, frame->text);
	int more = 0;

	while (usable && (more = range_next(&r)) > 0) {
		struct span key = buf_span(&r.key);
		range_skips(c,
			    any ? entries_behind(&c->entries, buf_span(&last))
				: entries_from(&c->entries, from),
			    key, false, p->watch.seen, here);
		struct entry *e = find_known(c, key);
		if (e)
			range_tells(c, e, p->watch.seen, notification_value_hash(&r.value, c->seed),
				    here);
		buf_take(&last, buf_len(&last));
		buf_add(&last, key.p, key.n);
		any = true;
	}
	if (more < 0) /* the client is told more than was read here */
		begin_anew(c);
	else if (usable && !r.truncated)
		range_skips(c,
			    any ? entries_behind(&c->entries, buf_span(&last))
				: entries_from(&c->entries, from),
			    to, true, p->watch.seen, here);
	buf_release(&last);
	range_end(&r);
}

static void client_range_answered(struct cache *c, struct pending *p,
				  const struct wire_frame *frame, bool here)
{
	struct buf text = {0}, from = {0};
	struct request request;

	if (frame->code == CODE_OK && parse(p, &text, &request)) {
		struct span key = decoded(c, &request.key);
		buf_add(&from, key.p, key.n);
		key = decoded(c, &request.end_key);
		for (size_t i = 0; i < c->n_mirrors; i++)
			mirror_answered(&c->mirrors[i], buf_span(&from), key, age_clock(c));
		range_answered(c, p, buf_span(&from), key, frame, here);
	}
	buf_release(&from);
	buf_release(&text);
}

/* A page has got no records, once more or for the first time. code: its answer's; 0: it had none.
 */
static void tell_failure(const struct cache *c, const struct mirror *m, int code)
{
	const struct pattern *p = &c->patterns[m - c->mirrors];
	char name[6 * NAME_MAX + 4];

	if (m->failures != 1)
		return;
	if (code)
		log_warning("mirror \"%s\": a page was answered with %d; it is asked for again",
			    shown(p, name), code);
	else
		log_warning("mirror \"%s\": a page got no usable answer; it is asked for again",
			    shown(p, name));
}

static void page_answered(struct cache *c, struct pending *p, const struct wire_frame *frame,
			  bool here)
{
	struct mirror *m = mirror_of_page(c, p);
	int64_t now = age_clock(c);
	char name[6 * NAME_MAX + 4];

	if (!m)
		return;
	bool loading = m->state == MIRROR_LOADING;
	const char *why = mirror_page(m, frame, here && !c->elsewhere ? p->watch.seen : 0, now);
	if (why)
		give_up(c, m, why);
	else if (loading && m->state == MIRROR_WHOLE)
		log_notice("mirror \"%s\": loaded, %zu keys",
			   shown(&c->patterns[m - c->mirrors], name),
			   c->entries.found_of[m->origin]);
	else if (loading && m->pages && m->pages % PROGRESS == 0)
		log_info("mirror \"%s\": loading, %zu keys so far",
			 shown(&c->patterns[m - c->mirrors], name), c->entries.found_of[m->origin]);
	else if (frame->code != CODE_OK)
		tell_failure(c, m, frame->code);
	wake(c);
}

static void on_answered(void *owner, struct pending *p, const struct wire_frame *frame, bool here)
{
	struct cache *c = owner;

	if (p->op == OP_GET)
		get_answered(c, p, frame, here);
	else if (p->op == OP_RANGE && is_own(c, p))
		page_answered(c, p, frame, here);
	else if (p->op == OP_RANGE && c->entries.keys.n + c->n_mirrors)
		client_range_answered(c, p, frame, here);
}

/* It was not even sent: it still is to be read again. */
static void unsent(struct cache *c, const struct pending *p)
{
	struct buf text = {0};
	struct request request;
	struct entry *e = parse(p, &text, &request) ? find(c, decoded(c, &request.key)) : NULL;

	if (e)
		settle(c, e);
	buf_release(&text);
}

/* A key that was to be read again. */
static void reread_over(struct cache *c, const struct pending *p, const struct entry *e)
{
	int64_t now = c->ops->mono_ms();

	c->reads--;
	c->failures = e && e->state != ENTRY_EMPTY ? 0 : c->failures + 1;
	/* Keys that can't be read (they change faster, say) do not take every turn. */
	if (c->failures > c->settings.reads_at_once)
		c->read_at = now + RETRY_MS;
	if (!e)
		unsent(c, p);
	wake_at(c, now);
}

static void on_over(void *owner, struct pending *p)
{
	struct cache *c = owner;
	struct entry *e = entry_of(p);
	struct mirror *m = is_own(c, p) && p->op == OP_RANGE ? mirror_of_page(c, p) : NULL;

	p->watch.entry = NULL;
	if (m) {
		mirror_no_page(m, p->watch.seen > 0 && !p->refused, age_clock(c));
		tell_failure(c, m, 0);
		wake(c);
	}
	if (is_own(c, p) && p->op == OP_GET)
		reread_over(c, p, e);
	if (!e)
		return;
	entries_renew(&c->entries, e);
	struct mirror *mirror = mirror_of_entry(c, e);
	if (request_op_is_read(p->op)) {
		e->readers--;
		settle(c, e);
	} else {
		e->fences--;
		truth_answered(e, age_clock(c));
		doubt(c, e);
	}
	keep_within(c, mirror); /* a mirror keeps it */
}

/* ---- answers from memory ---- */

/* An earlier request of the client for the key that is not answered may be answered with a newer
 * value. p: the request, if it is a pending itself. Among very many unanswered ones there may be
 * one: the request waits for its turn. */
static bool waits_for_own(const struct peer *peer, uint64_t key_hash, const struct pending *p)
{
	const struct pending *q;
	unsigned looks = 0;

	TAILQ_FOREACH (q, &peer->answers.pendings, answers.of_peer) {
		if (q == p)
			return false;
		if (q->key_hash == key_hash || ++looks > LOOK_MAX)
			return true;
	}
	return false;
}

/* Members behind the answer's own. */
static struct span last_members(const struct cache *c, char text[64])
{
	if (!c->stale)
		return SPAN(",\"cached\":true");
	int n = snprintf(text, 64, ",\"cached\":true,\"stale\":true,\"ageMs\":%lld",
			 (long long)(c->ops->boot_ms() - c->heard_at));
	return (struct span){text, (size_t)n};
}

/* May anything be served at all? */
static bool serves(struct cache *c)
{
	if (c->truth.live && !c->elsewhere)
		return true;
	return c->stale && c->ops->boot_ms() - c->lost_at <= c->settings.max_stale_ms;
}

/* By which ages are judged: they do not grow while the connection is down. */
static int64_t time_of_ages(struct cache *c, int64_t now)
{
	return c->stale ? c->lost_at : age_clock_at(c, now);
}

/* What is known of the key: FOUND, MISSING or EMPTY. now: time_of_ages(). */
static enum entry_state known(struct cache *c, const struct entry *e, struct span key, int64_t now)
{
	const struct mirror *m;

	if (e)
		return e->fences || now - e->read_at > c->settings.max_age_ms
			       ? ENTRY_EMPTY
			       : (enum entry_state)e->state;
	m = key.n > ENTRY_KEY_MAX ? NULL : mirror_of(c, key);
	return m && mirror_is_sure(m, now) ? ENTRY_MISSING : ENTRY_EMPTY;
}

/* Appends the answer to a get, if it is known. */
static bool write_get(struct cache *c, struct span key, struct span id, int64_t now,
		      struct buf *out, enum request_outcome *outcome)
{
	struct span value = {"", 0};
	struct entry *e = find(c, key);
	const struct shape *shape = c->entries.shapes.missing;
	char text[64];

	enum entry_state state = known(c, e, key, time_of_ages(c, now));
	if (state == ENTRY_EMPTY)
		return false;
	if (e) {
		entries_touch(&c->entries, e);
		shape = e->shape;
		value = entry_value(e);
	}
	shape_write(shape, key, value, id, last_members(c, text), out);
	*outcome = state == ENTRY_FOUND ? OUTCOME_OK : OUTCOME_SERVICE_ERROR;
	return true;
}

static void count_hit(struct cache *c)
{
	c->stats->cache_hits++;
	c->stats->requests_saved++;
	c->stats->cache_stale_hits += c->stale;
}

static void say(struct cache *c, struct peer *peer, const struct request *request,
		enum request_outcome outcome)
{
	count_hit(c);
	stats_ended(c->stats, request->op, outcome);
	router_say(c->router, peer, buf_span(&c->line), request->id.n > 0);
	buf_take(&c->line, buf_len(&c->line));
}

static bool answers_get(struct cache *c, struct peer *peer, const struct request *request,
			int64_t now)
{
	struct span key = decoded(c, &request->key);
	enum request_outcome outcome;

	if (!serves(c) ||
	    (peer->answers.unanswered &&
	     waits_for_own(peer, key_order_hash(peer, request, c->seed), NULL)) ||
	    !write_get(c, key, request->id, now, &c->line, &outcome)) {
		c->stats->cache_misses += is_ours(c, key);
		return false;
	}
	say(c, peer, request, outcome);
	return true;
}

static bool on_serve(void *owner, struct pending *p, struct buf *out, enum request_outcome *outcome)
{
	struct cache *c = owner;
	struct buf text = {0};
	struct request request;

	bool served = !is_own(c, p) && serves(c) && !waits_for_own(p->peer, p->key_hash, p) &&
		      parse(p, &text, &request) &&
		      write_get(c, decoded(c, &request.key), pending_id(p), c->ops->mono_ms(), out,
				outcome);
	if (served)
		count_hit(c);
	buf_release(&text);
	return served;
}

static const struct router_watch watch = {.taken = on_taken,
					  .serve = on_serve,
					  .sent = on_sent,
					  .answered = on_answered,
					  .over = on_over};

/* False: it is the service's to refuse. */
static bool read_limit(const struct request *request, size_t *limit)
{
	int64_t n = MIRROR_RANGE;

	if (request->limit.text.p && !json_number_integer(&request->limit, 1, INT64_MAX, &n))
		return false;
	*limit = n < MIRROR_RANGE_MAX ? (size_t)n : MIRROR_RANGE_MAX;
	return true;
}

static bool answers_range(struct cache *c, struct peer *peer, const struct request *request,
			  int64_t now)
{
	struct span key = decoded(c, &request->key);
	struct mirror *m = mirror_of(c, key);
	struct buf from = {0};
	size_t limit;
	char text[64];

	if (!m || !read_limit(request, &limit))
		return false;
	buf_add(&from, key.p, key.n);
	bool can = serves(c) && mirror_range(m, buf_span(&from), decoded(c, &request->end_key),
					     limit, time_of_ages(c, now), &c->line);
	buf_release(&from);
	if (!can) {
		c->stats->cache_misses++;
		return false;
	}
	if (request->id.n) {
		buf_addf(&c->line, ",\"messageId\":");
		buf_add(&c->line, request->id.p, request->id.n);
	}
	struct span last = last_members(c, text);
	buf_add(&c->line, last.p, last.n);
	buf_add(&c->line, "}\n", 2);
	say(c, peer, request, OUTCOME_OK);
	return true;
}

bool cache_answers(struct cache *c, struct peer *peer, const struct request *request, int64_t now)
{
	if (!c->n_patterns || request->fresh)
		return false;
	if (request->op == OP_GET)
		return answers_get(c, peer, request, now);
	return request->op == OP_RANGE && answers_range(c, peer, request, now);
}

/* ---- subscriptions ---- */

static void ask_for(struct cache *c, size_t i, int64_t now)
{
	struct pattern *p = &c->patterns[i];
	struct request request = {.op = OP_SUBSCRIBE, .timeout_ms = SUBSCRIBE_MS};
	struct buf name = {0};
	char id[24];

	json_add_string(&name, p->text);
	struct json_value text = {.text = buf_span(&name), .type = JSON_STRING};
	text.escaped = memchr(text.text.p, '\\', text.text.n) != NULL;
	*(p->exact ? &request.key : &request.pattern) = text;
	request.id = (struct span){id, (size_t)snprintf(id, sizeof(id), "%zu", i)};
	p->asked = true;
	subscriptions_subscribe(c->subscriptions, &c->peer, &request, now);
	buf_release(&name);
}

/* What is covered now? Whenever that changes for any, all begins anew. */
static void review(struct cache *c)
{
	bool turned = false, any = false;

	for (size_t i = 0; i < c->n_patterns; i++) {
		struct pattern *p = &c->patterns[i];
		bool covered = subscriptions_covers(c->subscriptions, &c->peer, !p->exact, p->text);
		turned |= covered != p->covered;
		any |= covered;
		p->covered = covered;
	}
	any &= !c->elsewhere;
	if (!turned && any == c->truth.live)
		return;
	c->truth.live = any;
	begin_anew(c);
}

/* A subscribe was refused: "messageId" names the pattern. */
static void refused(struct cache *c, struct span line)
{
	struct json_object_reader reader;
	struct json_member m;
	int64_t i = -1, code = 0;
	char name[6 * NAME_MAX + 4];
	struct span why = SPAN("no reason given");

	json_object_begin(&reader, line);
	while (json_object_next(&reader, &m) > 0) {
		if (json_string_is(&m.name, SPAN("messageId")) && m.value.type == JSON_NUMBER)
			json_number_integer(&m.value, 0, CACHE_PATTERNS_MAX, &i);
		else if (json_string_is(&m.name, SPAN("code")))
			json_number_integer(&m.value, 0, INT32_MAX, &code);
		else if (json_string_is(&m.name, SPAN("error")))
			why = json_string_raw(&m.value);
	}
	if (i < 0 || (size_t)i >= c->n_patterns || !c->patterns[i].asked)
		return;
	struct pattern *p = &c->patterns[i];
	p->asked = false;
	p->held = code == CODE_OK;
	if (p->held)
		return;
	int64_t pause = (int64_t)RETRY_MS << (p->refusals < 9 ? p->refusals : 9);
	p->retry_at = c->ops->mono_ms() + (pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS);
	if (!p->refusals++)
		log_warning("cache: can't subscribe to \"%s\": %.*s; nothing of it is remembered",
			    shown(p, name), (int)why.n, why.p);
	wake_at(c, p->retry_at);
}

bool cache_is_peer(const struct cache *c, const struct peer *peer)
{
	return c && peer == &c->peer;
}

static bool is_asking(const struct cache *c)
{
	for (size_t i = 0; i < c->n_patterns; i++) {
		if (c->patterns[i].asked)
			return true;
	}
	return false;
}

/* Answers to subscribes are looked at; what reads bring was seen before. */
void cache_heard(struct cache *c)
{
	struct span line;

	while ((line = buf_span(&c->peer.out.own)).n && is_asking(c)) {
		line.n = (size_t)((const char *)memchr(line.p, '\n', line.n) - line.p);
		refused(c, line);
		buf_take(&c->peer.out.own, line.n + 1);
	}
	buf_clear(&c->peer.out.own);
	if (buf_size(&c->peer.out.own) > UNUSED_LINES_MAX)
		buf_release(&c->peer.out.own);
	if (!c->stale)
		review(c);
}

/* ---- connections ---- */

void cache_up(struct cache *c)
{
	c->elsewhere = false;
	if (c->stale)
		forget(c);
	truth_bar(&c->truth);
}

void cache_live(struct cache *c, bool token)
{
	truth_bar(&c->truth);
	if (token) {
		review(c);
	} else if (c->truth.live) {
		c->truth.live = false;
		forget(c);
	}
}

void cache_lost(struct cache *c, int64_t heard_ms)
{
	bool was_live = c->truth.live && !c->elsewhere;

	c->truth.live = false;
	truth_bar(&c->truth);
	if (!was_live)
		return;
	if (!c->settings.max_stale_ms) {
		forget(c);
		return;
	}
	c->stale = true;
	c->lost_at = c->ops->boot_ms();
	c->heard_at = heard_ms;
	wake(c);
}

void cache_elsewhere(struct cache *c)
{
	c->elsewhere = true;
	c->truth.live = false;
	forget(c);
}

void cache_missed(struct cache *c)
{
	if (c->n_patterns)
		begin_anew(c);
}

/* ---- notifications ---- */

/* May the value of a notification that arrives take the place of what is known? An answer that came
 * just before may be newer. e: not EMPTY; NULL: the key has no entry. */
static bool may_take(struct cache *c, const struct entry *e, struct span key)
{
	int64_t now = age_clock(c), within = c->settings.request_timeout_ms;
	const struct mirror *m = mirror_of(c, key);
	bool answered = e ? truth_is_answered(e, now, within)
			  : !m || !mirror_is_sure(m, now) || now - m->answered_at < within;

	answered |= now - c->awake_at < within; /* sleep delays notifications */
	return c->truth.live && !answered && (!m || mirror_is_active(m)) && is_covered(c, key);
}

void cache_arrived(struct cache *c, const struct wire_frame *frame)
{
	if (!c->n_patterns)
		return;
	struct span key = decoded(c, &frame->key);
	struct entry *e = c->settings.trust ? find(c, key) : NULL;
	bool takes = c->settings.trust && (!e || e->state != ENTRY_EMPTY) && may_take(c, e, key);

	if (!e || e->state == ENTRY_EMPTY) {
		doubt_key(c, key);
	} else if (e->told == notification_value_hash(&frame->value, c->seed)) {
		e->changed = truth_now(&c->truth); /* what was read before may be another */
	} else {
		/* It stays, for cache_change() may take the value. */
		c->stats->cache_invalidations++;
		truth_doubt(&c->truth, &c->entries, e);
		if (e->origin != ORIGIN_KEYS || !takes)
			settle(c, e);
	}
	c->taking = takes ? frame->text.p : NULL;
}

static void take(struct cache *c, struct entry *e, const struct json_value *value, int64_t now)
{
	struct mirror *m = mirror_of_entry(c, e);
	bool deleted = !value->text.p || value->type == JSON_NULL;

	if (m)
		mirror_unlink(m, e);
	e->read_at = now;
	e->answered = false;
	entries_set(&c->entries, e, deleted ? ENTRY_MISSING : ENTRY_FOUND,
		    shape_ref(deleted ? c->entries.shapes.missing : c->entries.shapes.found),
		    deleted ? (struct span){0} : value->text);
	truth_believed(&c->truth, e, notification_value_hash(value, c->seed));
	settle(c, e);
	keep_within(c, m);
}

void cache_change(struct cache *c, const struct wire_frame *frame,
		  const struct notification *change)
{
	bool usable = !frame->value.text.p || frame->value.type == JSON_NULL ||
		      frame->value.type == JSON_STRING;

	/* One that was held back is taken no more: others may have arrived since. */
	bool takes = usable && c->taking && c->taking == frame->text.p;
	c->taking = NULL;
	if (!takes)
		return;
	struct entry *e = entries_find(&c->entries, decoded(c, &frame->key), change->key_hash);
	const struct mirror *m = e ? mirror_of_entry(c, e) : NULL;
	if (e && e->state == ENTRY_EMPTY && !e->fences && (!m || mirror_is_active(m)))
		take(c, e, &frame->value, age_clock(c));
}

/* ---- what the cache asks for ---- */

static struct json_value string_of(struct buf *json, struct span text)
{
	json_add_string(json, text);
	struct json_value v = {.text = buf_span(json), .type = JSON_STRING};
	v.escaped = memchr(v.text.p, '\\', v.text.n) != NULL;
	return v;
}

/* Longer than clients wait: under a rate limit the cache's turn comes as theirs do. */
static uint32_t patience_ms(const struct cache *c)
{
	int64_t ms = PATIENCE * c->settings.request_timeout_ms;

	return (uint32_t)(ms < REQUEST_TIMEOUT_MAX_MS ? ms : REQUEST_TIMEOUT_MAX_MS);
}

static void ask_page(struct cache *c, struct mirror *m, int64_t now)
{
	struct buf from = {0}, last = {0};
	char id[24], limit[24];

	mirror_asked(m, ++c->pages, age_clock_at(c, now));
	struct request request = {
		.op = OP_RANGE,
		.id = {id,
		       (size_t)snprintf(id, sizeof(id), "%" PRIu64,
					m->page * CACHE_PATTERNS_MAX + (uint64_t)(m - c->mirrors))},
		.timeout_ms = patience_ms(c),
		.key = string_of(&from, buf_span(&m->from)),
		.end_key = string_of(&last, buf_span(&m->last)),
		.limit = {.text = {limit, (size_t)snprintf(limit, sizeof(limit), "%u", m->limit)},
			  .type = JSON_NUMBER}};
	router_request(c->router, &c->peer, &request, now);
	buf_release(&from);
	buf_release(&last);
}

static void ask_key(struct cache *c, struct mirror *m, struct entry *e, int64_t now)
{
	struct buf key = {0};
	struct request request = {.op = OP_GET,
				  .id = SPAN("\"read\""), /* numbers are subscribes' */
				  .timeout_ms = patience_ms(c),
				  .key = string_of(&key, entry_key(e))};

	mirror_unlink(m, e);
	c->reads++;
	c->stats->cache_rereads++;
	router_request(c->router, &c->peer, &request, now);
	buf_release(&key);
}

static void ask_keys(struct cache *c, struct mirror *m, int64_t now)
{
	struct entry *e;

	while (m->state == MIRROR_WHOLE && c->reads < c->settings.reads_at_once &&
	       c->read_at <= now && (e = mirror_next_unknown(m)))
		ask_key(c, m, e, now);
	if (c->read_at > now && mirror_next_unknown(m))
		wake_at(c, c->read_at);
}

static void ask_mirrors(struct cache *c, int64_t now)
{
	for (size_t i = 0; i < c->n_mirrors && c->truth.live && !c->stopped; i++) {
		struct mirror *m = &c->mirrors[i];
		if (mirror_wants_page(m, age_clock_at(c, now)))
			ask_page(c, m, now);
		else if (mirror_is_active(m) && !m->asking)
			wake_at(c, time_of_age(c, m->due, now));
		ask_keys(c, m, now);
	}
}

static void subscribe_all(struct cache *c, int64_t now)
{
	for (size_t i = 0; i < c->n_patterns && !c->stopped; i++) {
		const struct pattern *p = &c->patterns[i];
		if (p->asked || p->held)
			continue;
		if (p->retry_at <= now)
			ask_for(c, i, now);
		else
			wake_at(c, p->retry_at);
	}
}

int64_t cache_expire(struct cache *c, int64_t now)
{
	c->wake = -1;
	if (c->stale) {
		int64_t left = c->settings.max_stale_ms - (c->ops->boot_ms() - c->lost_at);
		if (left < 0)
			forget(c);
		else
			wake_at(c, now + left + 1);
	}
	subscribe_all(c, now);
	if (entries_sweep(&c->entries, SWEEP))
		wake_at(c, now + SWEEP_MS);
	else
		ask_mirrors(c, now); /* there is room for them now */
	return c->wake;
}

/* ---- settings ---- */

static struct span copy(const char *text)
{
	size_t n = strlen(text);

	return (struct span){mem_strndup(text, n), n};
}

static void add_pattern(struct cache *c, const char *text)
{
	c->patterns[c->n_patterns++] =
		(struct pattern){.text = copy(text), .exact = !strchr(text, '*')};
}

static void free_patterns(struct cache *c)
{
	for (size_t i = 0; i < c->n_mirrors; i++)
		mirror_fini(&c->mirrors[i]);
	for (size_t i = 0; i < c->n_patterns; i++)
		free((void *)(uintptr_t)c->patterns[i].text.p);
	c->n_mirrors = c->n_patterns = 0;
}

static void make_patterns(struct cache *c, const struct cache_settings *s)
{
	for (size_t i = 0; i < s->n_mirrors; i++)
		add_pattern(c, s->mirrors[i]);
	for (size_t i = 0; i < s->n_keys; i++)
		add_pattern(c, s->keys[i]);
	for (; c->n_mirrors < s->n_mirrors; c->n_mirrors++) {
		struct span text = c->patterns[c->n_mirrors].text;
		text.n--;
		mirror_init(&c->mirrors[c->n_mirrors], &c->entries, &c->truth, &c->limits,
			    (uint8_t)(ORIGIN_MIRROR + c->n_mirrors), text);
	}
}

static bool has_pattern(const struct cache *c, size_t i, const char *text)
{
	return span_equal(c->patterns[i].text, (struct span){text, strlen(text)});
}

static bool has_same_patterns(const struct cache *c, const struct cache_settings *s)
{
	bool same = c->n_mirrors == s->n_mirrors && c->n_patterns == s->n_mirrors + s->n_keys;

	for (size_t i = 0; same && i < s->n_mirrors; i++)
		same = has_pattern(c, i, s->mirrors[i]);
	for (size_t i = 0; same && i < s->n_keys; i++)
		same = has_pattern(c, s->n_mirrors + i, s->keys[i]);
	return same;
}

static void take_limits(struct cache *c, const struct cache_settings *s)
{
	c->settings = *s;
	c->settings.keys = c->settings.mirrors = NULL; /* copied */
	c->limits = (struct mirror_limits){
		.memory = s->memory,
		.max_age_ms = s->max_age_ms,
		.keep_missing_ms = s->trust ? s->request_timeout_ms : 0,
	};
}

static void change_patterns(struct cache *c, const struct cache_settings *s)
{
	struct request all = {.op = OP_UNSUBSCRIBE, .id = SPAN("\"end\"")};

	if (c->n_patterns)
		subscriptions_unsubscribe(c->subscriptions, &c->peer, &all);
	c->truth.live = false;
	forget(c);
	c->patterns_at = truth_now(&c->truth);
	free_patterns(c);
	make_patterns(c, s);
	/* Writes that are under way are fenced as well, if they concern what is remembered now. */
	router_watch(c->router, c->n_patterns ? &watch : NULL, c);
	wake(c);
}

/* Of those that have entries; NULL: none has. */
static struct mirror *largest_mirror(struct cache *c)
{
	struct mirror *largest = NULL;
	size_t most = 0;

	for (size_t i = 0; i < c->n_mirrors; i++) {
		struct mirror *m = &c->mirrors[i];
		if (mirror_is_active(m) && c->entries.n_of[m->origin] > most) {
			largest = m;
			most = c->entries.n_of[m->origin];
		}
	}
	return largest;
}

void cache_set(struct cache *c, const struct cache_settings *settings)
{
	bool given_up = false;
	struct mirror *largest;

	take_limits(c, settings);
	if (!has_same_patterns(c, settings)) {
		change_patterns(c, settings);
		return;
	}
	for (size_t i = 0; i < c->n_mirrors; i++) {
		given_up |= c->mirrors[i].state == MIRROR_GIVEN_UP;
		mirror_try_again(&c->mirrors[i]);
		mirror_hurry(&c->mirrors[i], age_clock(c));
	}
	if (given_up)
		begin_anew(c);
	keep_within(c, NULL);
	while (c->entries.bytes > c->settings.memory && (largest = largest_mirror(c)))
		keep_within(c, largest);
	wake(c);
}

struct cache *cache_new(const struct cache_settings *settings, const struct cache_ops *ops,
			void *owner, struct router *router, struct subscriptions *subscriptions,
			struct stats *stats, uint64_t seed)
{
	struct cache *c = mem_zalloc(sizeof(*c));

	c->ops = ops;
	c->owner = owner;
	c->router = router;
	c->subscriptions = subscriptions;
	c->stats = stats;
	c->seed = seed;
	c->wake = -1;
	c->age_now = ops->boot_ms();
	c->age_of = ops->mono_ms();
	c->peer.number = UINT64_MAX;
	c->peer.uid = (uid_t)-1;
	c->peer.silent = true;
	entries_init(&c->entries, origin_of, c);
	truth_init(&c->truth, seed);
	router_join(router, &c->peer);
	subscriptions_join(subscriptions, &c->peer);
	cache_set(c, settings);
	return c;
}

void cache_stop(struct cache *c)
{
	c->stopped = true;
}

void cache_leave(struct cache *c)
{
	c->stopped = true;
	router_leave(c->router, &c->peer, 0);
	subscriptions_leave(c->subscriptions, &c->peer);
}

void cache_free(struct cache *c)
{
	free_patterns(c);
	entries_fini(&c->entries);
	outq_fini(&c->peer.out);
	buf_release(&c->line);
	buf_release(&c->name);
	free(c);
}

/* ---- for the status ---- */

const struct peer *cache_peer(const struct cache *c)
{
	return &c->peer;
}

struct cache_counts cache_counts(const struct cache *c)
{
	return (struct cache_counts){.live = c->truth.live && !c->elsewhere,
				     .entries = c->entries.n,
				     .bytes = c->entries.bytes,
				     .mirrors = c->n_mirrors};
}

struct cache_mirror cache_mirror(const struct cache *c, size_t i)
{
	static const char *const names[] = {[MIRROR_OUT] = "stale",
					    [MIRROR_LOADING] = "loading",
					    [MIRROR_WHOLE] = "whole",
					    [MIRROR_GIVEN_UP] = "too big"};
	const struct mirror *m = &c->mirrors[i];
	bool stale = !c->truth.live && m->state != MIRROR_GIVEN_UP;

	return (struct cache_mirror){.pattern = c->patterns[i].text,
				     .state = stale ? "stale" : names[m->state],
				     .keys = c->entries.found_of[m->origin]};
}
