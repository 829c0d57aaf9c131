#include "live.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/glob.h"
#include "base/mem.h"
#include "codec/json.h"
#include "visible.h"

enum {
	AGAIN_MS = 500,     /* after a failure that passes */
	EXPLAIN_MS = 1000,  /* a notification that explains what was read comes within */
	QUIET_MS = 50,      /* without a change: a quiet moment */
	PATIENCE_MS = 2000, /* without a quiet moment, while order is kept: publish all the same */
	AT_ONCE = 64,
};

/* ---- records ---- */

static bool is_ours(const struct live *l, struct hpkv_bytes key)
{
	struct span name = {key.p, key.n};

	return (l->glob.p && glob_matches(l->glob, name)) ||
	       (l->extra.p && span_equal(l->extra, name));
}

/* What it is all about, for messages. */
static struct hpkv_bytes subject(const struct live *l)
{
	struct span s = l->glob.p ? l->glob : l->extra;

	return (struct hpkv_bytes){s.p, s.n};
}

static struct live_record *find(const struct live *l, struct hpkv_bytes key)
{
	struct span name = {key.p, key.n};
	struct map_node *node = map_first(&l->records, json_bytes_hash(name, l->seed));

	for (; node; node = map_next(node)) {
		struct live_record *r = map_entry(node, struct live_record, node);
		if (span_equal(live_key(r), name))
			return r;
	}
	return NULL;
}

static struct live_record *find_or_add(struct live *l, struct hpkv_bytes key)
{
	struct live_record *r = find(l, key);

	if (r)
		return r;
	r = mem_zalloc(sizeof(*r) + key.n);
	r->live = l;
	r->key_n = key.n;
	memcpy(r->key, key.p, key.n);
	map_add(&l->records, &r->node, json_bytes_hash(live_key(r), l->seed));
	return r;
}

static void set_check(struct live_record *r, enum live_check check)
{
	if (r->check == LIVE_SURE && check != LIVE_SURE)
		TAILQ_INSERT_TAIL(&r->live->doubts, r, doubt);
	if (r->check != LIVE_SURE && check == LIVE_SURE)
		TAILQ_REMOVE(&r->live->doubts, r, doubt);
	r->check = check;
}

static bool same(const char *p, size_t n, struct hpkv_bytes value)
{
	if (!p || !value.p)
		return !p && !value.p;
	return n == value.n && memcmp(p, value.p, n) == 0;
}

static void set_value(struct live_record *r, struct hpkv_bytes value)
{
	struct live *l = r->live;

	if (same(r->value, r->n, value))
		return;
	free(r->value);
	r->value = value.p ? mem_strndup(value.p, value.n) : NULL;
	r->n = value.n;
	l->version++;
	l->changed = cli_now_ms();
	if (!l->changing)
		l->changing = l->changed;
}

static void drop(struct live_record *r)
{
	set_check(r, LIVE_SURE);
	map_remove(&r->live->records, &r->node);
	free(r->value);
	free(r->read);
	free(r);
}

/* Forgets those that are not there, which nobody waits for. */
static void sweep(struct live *l)
{
	struct map_walk walk = {0};
	struct map_node *node;

	while ((node = map_walk(&l->records, &walk))) {
		struct live_record *r = map_entry(node, struct live_record, node);
		if (!r->value && r->check == LIVE_SURE)
			drop(r);
	}
}

/* ---- what is read of a record ---- */

static void believe(struct live_record *r)
{
	struct live *l = r->live;

	l->distrusted = true;
	set_value(r, (struct hpkv_bytes){r->read, r->read_n});
	set_check(r, LIVE_SURE);
}

static void on_value(void *arg, const struct hpkv_answer *a)
{
	struct live_record *r = arg;
	struct hpkv_bytes value = a->result ? (struct hpkv_bytes){0} : a->value;
	bool read = a->result == HPKV_OK || a->result == HPKV_NOT_FOUND;

	r->live->reading--;
	r->due = 0;
	if (a->result == HPKV_CANCELLED)
		return;
	if (r->again || !read) {
		if (!read)
			r->due = cli_now_ms() + AGAIN_MS;
		set_check(r, LIVE_TO_READ);
	} else if (same(r->value, r->n, value)) {
		set_check(r, LIVE_SURE);
	} else {
		free(r->read);
		r->read = value.p ? mem_strndup(value.p, value.n) : NULL;
		r->read_n = value.n;
		r->due = cli_now_ms() + EXPLAIN_MS;
		set_check(r, LIVE_DIFFERS);
	}
}

static void read_record(struct live_record *r)
{
	struct live *l = r->live;
	struct hpkv_request q = {.op = HPKV_GET, .key = {r->key, r->key_n}};

	r->again = false;
	if (hpkv_send(l->c->hpkv, &q, on_value, r) != HPKV_OK) {
		r->due = cli_now_ms() + AGAIN_MS;
		return;
	}
	l->reading++;
	set_check(r, LIVE_READING);
}

/* ---- events ---- */

static void on_change(struct live *l, const struct hpkv_event *e)
{
	if (!is_ours(l, e->key))
		return;
	struct live_record *r = find_or_add(l, e->key);
	bool sure = e->flags || !e->value.p;

	r->touched = l->load;
	l->disordered |= e->skipped > 0;
	set_value(r, e->value);
	if (r->check == LIVE_READING) {
		r->again = true;
	} else if (sure) {
		set_check(r, LIVE_SURE);
	} else {
		r->due = 0;
		set_check(r, LIVE_TO_READ);
	}
}

static void on_dropped(struct live *l, const struct hpkv_event *e)
{
	cli_say("%s: %s is not told any more: %s", l->c->command->name,
		visible_name(e->key.p ? e->key : e->pattern), e->text);
	l->status = CLI_REFUSED;
}

static void on_event(void *arg, const struct hpkv_event *e)
{
	struct live *l = arg;
	const char *name = l->c->command->name;

	switch (e->type) {
	case HPKV_EVENT_CHANGE:
		on_change(l, e);
		break;
	case HPKV_EVENT_GAP:
		l->reload = true;
		break;
	case HPKV_EVENT_UPSTREAM_LOST:
		cli_say("%s: hpkvd has lost its connection to the service; nothing changes until "
			"it is back",
			name);
		l->away = true;
		break;
	case HPKV_EVENT_UPSTREAM_BACK:
		cli_say("%s: hpkvd is connected to the service again", name);
		l->away = false;
		l->reload = true;
		break;
	case HPKV_EVENT_LOST:
		cli_say("%s: %s; nothing changes until it is back", name, e->text);
		l->away = true;
		break;
	case HPKV_EVENT_BACK:
		cli_say("%s: connected to hpkvd again", name);
		l->away = false;
		l->reload = true;
		break;
	case HPKV_EVENT_DROPPED:
		on_dropped(l, e);
		break;
	case HPKV_EVENT_OTHER:
		break;
	}
}

/* ---- failures ---- */

/* Ends it, or puts it off. */
static void failed(struct live *l, const struct hpkv_answer *a)
{
	bool passes = a->result == HPKV_UNAVAILABLE || a->result == HPKV_BUSY ||
		      (a->result == HPKV_NO_DAEMON && l->phase == LIVE_SUBSCRIBED);

	if (a->result == HPKV_CANCELLED)
		return;
	if (!l->patient || !passes) {
		l->status = cli_fail(l->c->command->name, subject(l), a);
		return;
	}
	if (!l->complained)
		cli_say("%s: %s: %s; trying again", l->c->command->name, visible_name(subject(l)),
			a->error);
	l->complained = true;
	l->due = cli_now_ms() + (a->retry_after_ms > AGAIN_MS ? a->retry_after_ms : AGAIN_MS);
}

static void not_sent(struct live *l, int result)
{
	failed(l, &(struct hpkv_answer){.result = (enum hpkv_result)result,
					.error = hpkv_error(l->c->hpkv),
					.reason = "",
					.retry_after_ms = -1});
}

/* ---- loading ---- */

static void take_record(struct live *l, const struct hpkv_record *record)
{
	if (!is_ours(l, record->key))
		return;
	struct live_record *r = find_or_add(l, record->key);

	r->seen = l->load;
	if (r->touched == l->load) /* what was told since is newer */
		return;
	set_value(r, record->value);
	if (r->check == LIVE_READING)
		r->again = true;
	else
		set_check(r, LIVE_SURE);
}

/* What neither the pages nor a notification has named is gone. */
static void loaded(struct live *l)
{
	struct map_walk walk = {0};
	struct map_node *node;

	while ((node = map_walk(&l->records, &walk))) {
		struct live_record *r = map_entry(node, struct live_record, node);
		if (r->seen != l->load && r->touched != l->load)
			set_value(r, (struct hpkv_bytes){0});
	}
	pages_end(&l->pages);
	l->loading = false;
	l->complained = false;
	l->changed = cli_now_ms(); /* notifications of what was read may be under way */
	l->changing = l->changed;
}

static void begin_extra(struct live *l)
{
	struct hpkv_bytes key = {l->extra.p, l->extra.n};

	pages_end(&l->pages);
	pages_of_range(&l->pages, l->c->hpkv, key, key);
	l->at_extra = true;
}

static void begin_load(struct live *l)
{
	l->reload = l->at_extra = false;
	l->loading = true;
	l->load++;
	if (l->glob.p) {
		struct span literal = glob_literal(l->glob);
		pages_of_prefix(&l->pages, l->c->hpkv, (struct hpkv_bytes){literal.p, literal.n});
	} else {
		begin_extra(l);
	}
}

static void on_page(void *arg, const struct hpkv_answer *a)
{
	struct live *l = arg;
	int got = a->result == HPKV_CANCELLED ? -1 : pages_answer(&l->pages, a);

	l->asked = false;
	if (got < 0) {
		failed(l, a);
		return;
	}
	for (size_t i = 0; got && i < a->n_records; i++)
		take_record(l, &a->records[i]);
	if (l->pages.stuck.result)
		failed(l, &l->pages.stuck);
	else if (l->pages.ended && l->extra.p && !l->at_extra)
		begin_extra(l);
	else if (l->pages.ended)
		loaded(l);
}

static void load(struct live *l)
{
	struct hpkv_request q;

	if (!l->loading)
		begin_load(l);
	pages_question(&l->pages, PAGES_MOST, &q);
	int result = hpkv_send(l->c->hpkv, &q, on_page, l);
	if (result)
		not_sent(l, result);
	else
		l->asked = true;
}

static void on_subscribed(void *arg, const struct hpkv_answer *a)
{
	struct live *l = arg;

	l->phase = a->result ? LIVE_UNSUBSCRIBED : LIVE_SUBSCRIBED;
	if (a->result)
		failed(l, a);
}

static void subscribe(struct live *l)
{
	struct hpkv_bytes pattern = {l->glob.p, l->glob.n}, key = {l->extra.p, l->extra.n};
	struct hpkv_request q = {.op = HPKV_SUBSCRIBE,
				 .patterns = &pattern,
				 .n_patterns = pattern.p != NULL,
				 .keys = &key,
				 .n_keys = key.p != NULL};

	l->phase = LIVE_SUBSCRIBING;
	int result = hpkv_send(l->c->hpkv, &q, on_subscribed, l);
	if (result) {
		l->phase = LIVE_UNSUBSCRIBED;
		not_sent(l, result);
	}
}

/* ---- steps ---- */

static int sooner(int ms, long long at, long long now)
{
	int left = at > now ? (int)(at - now) : 0;

	return ms < 0 || left < ms ? left : ms;
}

static int step_doubts(struct live *l, long long now)
{
	struct live_record *r, *next;
	int ms = -1;

	for (r = TAILQ_FIRST(&l->doubts); r; r = next) {
		next = TAILQ_NEXT(r, doubt);
		if (r->check == LIVE_READING || (r->check == LIVE_TO_READ && l->away))
			continue;
		if (r->check == LIVE_TO_READ && r->due <= now && l->reading < AT_ONCE)
			read_record(r);
		else if (r->check == LIVE_DIFFERS && r->due <= now && !l->away)
			believe(r);
		else if (r->check == LIVE_DIFFERS || l->reading < AT_ONCE)
			ms = sooner(ms, r->due, now);
	}
	return ms;
}

/* It is not known yet what the store holds. */
static bool is_blind(const struct live *l)
{
	return l->phase != LIVE_SUBSCRIBED || l->loading || l->reload || l->away || !l->load;
}

static bool keeps_order(const struct live *l)
{
	return !l->disordered && !l->distrusted;
}

int live_step(struct live *l)
{
	long long now = cli_now_ms();
	int ms = step_doubts(l, now);

	if (l->status)
		return 0;
	if (l->phase == LIVE_UNSUBSCRIBED && l->due <= now)
		subscribe(l);
	else if (l->phase == LIVE_SUBSCRIBED && !l->asked && (l->loading || l->reload) &&
		 l->due <= now)
		load(l);
	if (l->due > now)
		ms = sooner(ms, l->due, now);
	if (l->changing && !is_blind(l) && TAILQ_EMPTY(&l->doubts))
		ms = sooner(ms, l->changed + QUIET_MS, now);
	else if (l->changing && !is_blind(l) && keeps_order(l))
		ms = sooner(ms, l->changing + PATIENCE_MS, now);
	return l->status ? 0 : ms;
}

bool live_is_ready(struct live *l)
{
	long long now = cli_now_ms();

	if (is_blind(l))
		return false;
	if (TAILQ_EMPTY(&l->doubts) && now - l->changed >= QUIET_MS) {
		l->disordered = false;
		l->changing = 0;
		sweep(l);
		return true;
	}
	if (!l->changing || !keeps_order(l) || now - l->changing < PATIENCE_MS)
		return false;
	l->changing = now;
	return true;
}

static int by_key(const void *a, const void *b)
{
	const struct live_record *x = *(struct live_record *const *)a,
				 *y = *(struct live_record *const *)b;
	int difference = memcmp(x->key, y->key, x->key_n < y->key_n ? x->key_n : y->key_n);

	return difference ? difference : (x->key_n > y->key_n) - (x->key_n < y->key_n);
}

struct live_record **live_list(struct live *l, size_t *n)
{
	struct live_record **list = mem_alloc((l->records.n + 1) * sizeof(struct live_record *));
	struct map_walk walk = {0};
	struct map_node *node;

	*n = 0;
	while ((node = map_walk(&l->records, &walk))) {
		struct live_record *r = map_entry(node, struct live_record, node);
		if (r->value)
			list[(*n)++] = r;
	}
	qsort(list, *n, sizeof(struct live_record *), by_key);
	return list;
}

static struct span span_of(const char *text)
{
	return (struct span){text, text ? strlen(text) : 0};
}

void live_begin(struct live *l, struct cli *c, const char *glob, const char *extra, bool patient)
{
	*l = (struct live){.c = c,
			   .glob = span_of(glob),
			   .extra = span_of(extra),
			   .doubts = TAILQ_HEAD_INITIALIZER(l->doubts),
			   .patient = patient,
			   .reload = true};
	if (getrandom(&l->seed, sizeof(l->seed), GRND_NONBLOCK) < 0)
		l->seed = (uint64_t)cli_now_ms();
	hpkv_on_event(c->hpkv, on_event, l);
}

void live_end(struct live *l)
{
	struct map_walk walk = {0};
	struct map_node *node;

	hpkv_free(l->c->hpkv); /* calls back about what was asked for */
	l->c->hpkv = NULL;
	while ((node = map_walk(&l->records, &walk)))
		drop(map_entry(node, struct live_record, node));
	pages_end(&l->pages);
	map_fini(&l->records);
}
