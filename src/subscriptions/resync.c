#include "subscriptions/resync.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/heap.h"
#include "codec/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "subscriptions/events.h"

enum {
	TRIES = 3,
	MOVES = 10,
	PATIENT_SHARE = 8,
	POISON_MS = 600000,
	POISONS_MAX = 256, /* keys in the record; the oldest is forgotten */
	CODE_OK = 200,
	CODE_NOT_FOUND = 404,
	CODE_FAULT = 500
};

enum reading_state {
	READING_QUEUED,
	READING_ASKED, /* the router has it and has not sent it */
	READING_SENT,
	READING_STATE_N
};

struct reading {
	struct topic *topic; /* NULL: no subscriber waits any more, but the router still has it */
	enum reading_state state;
	bool hurry;     /* for an initial value */
	bool doubtful;  /* the answer can not be ordered, since a change was lost; useless is set as
			   well */
	bool useless;   /* the answer is of no use: too much was held, or a connection was lost */
	unsigned tries; /* that failed or were not sent in time */
	unsigned moves; /* ... that were answered on a former connection */
	uint64_t epoch; /* resync::epoch when it was sent to the router */
	size_t wishes;  /* subs that wait for it, SUB_INITIAL_LATER included */
	struct heap_node turn; /* resync::hurried, while READING_QUEUED and in a hurry */
	TAILQ_ENTRY(reading)
	of_queue; /* resync::patient, while READING_QUEUED and not in a hurry; resync::working,
		     while the router has it */

	/* From READING_SENT on: topic::changes and last_value when it was sent, and the changes
	 * held since. */
	uint64_t changes, last_value;
	struct shared_line **held;
	size_t n_held, held_bytes;
};

TAILQ_HEAD(reading_list, reading);

/* A key over which connections may have been lost. */
struct poison {
	uint64_t key_hash;
	unsigned losses; /* as blame_pending::losses */
	int64_t at;      /* of the last loss */
};

struct resync {
	struct resync_settings settings;
	const struct resync_ops *ops;
	void *owner;
	struct topics *topics;
	struct fanout *fanout;
	struct router *router;
	struct stats *stats;
	struct heap hurried; /* in the order of turn_of() */
	struct reading_list patient, working;
	uint32_t round;   /* the present one */
	uint32_t made;    /* readings in a hurry so far */
	uint32_t picked;  /* readings begun while both kinds waited */
	size_t n;         /* readings */
	unsigned at_work; /* readings that the router has */
	uint64_t epoch;   /* changes with each loss */
	bool started;
	struct poison poisons[POISONS_MAX]; /* the oldest loss first */
	size_t n_poisons;
	struct buf scratch;
};

struct resync *resync_new(const struct resync_settings *settings, const struct resync_ops *ops,
			  void *owner, struct topics *topics, struct fanout *fanout,
			  struct router *router, struct stats *stats)
{
	struct resync *r = mem_zalloc(sizeof(*r));

	*r = (struct resync){.settings = *settings,
			     .ops = ops,
			     .owner = owner,
			     .topics = topics,
			     .fanout = fanout,
			     .router = router,
			     .stats = stats};
	TAILQ_INIT(&r->patient);
	TAILQ_INIT(&r->working);
	return r;
}

void resync_set(struct resync *r, const struct resync_settings *settings)
{
	r->settings = *settings;
}

void resync_free(struct resync *r)
{
	buf_release(&r->scratch);
	heap_fini(&r->hurried);
	free(r);
}

size_t resync_waiting(const struct resync *r)
{
	return r->n;
}

void resync_join(struct peer *peer)
{
	peer->resync = (struct resync_peer){.round = 0};
}

/* ---- readings come and go ---- */

/* Initial values are read in rounds, with one value per client in each. A client that wants ten
 * thousand values does not delay one that wants a single one. Within a round the order is first
 * come, first served. */
static int64_t turn_of(struct resync *r, struct peer *peer)
{
	if (peer->resync.round < r->round)
		peer->resync.round = r->round;
	return (int64_t)peer->resync.round++ << 32 | r->made++;
}

/* A reading in a hurry is queued by g->turn.at. */
static void enqueue(struct resync *r, struct reading *g)
{
	g->state = READING_QUEUED;
	if (g->hurry)
		heap_add(&r->hurried, &g->turn, g->turn.at);
	else
		TAILQ_INSERT_TAIL(&r->patient, g, of_queue);
}

static void dequeue(struct resync *r, struct reading *g)
{
	if (g->hurry)
		heap_remove(&r->hurried, &g->turn);
	else
		TAILQ_REMOVE(&r->patient, g, of_queue);
}

/* The topic's reading, made or hurried if necessary. hurried_by: the client that wants an initial
 * value, or NULL. */
static struct reading *reading_of(struct resync *r, struct topic *t, struct peer *hurried_by)
{
	struct reading *g = t->reading;

	if (!g) {
		g = mem_zalloc(sizeof(*g));
		g->topic = t;
		g->changes = t->changes;
		t->reading = g;
		r->n++;
	} else if (hurried_by && !g->hurry && g->state == READING_QUEUED) {
		dequeue(r, g);
	} else {
		return g;
	}
	g->hurry = hurried_by != NULL;
	if (hurried_by)
		g->turn.at = turn_of(r, hurried_by);
	enqueue(r, g);
	return g;
}

static void drop_held(struct reading *g)
{
	for (size_t i = 0; i < g->n_held; i++)
		shared_line_unref(g->held[i]);
	free(g->held);
	g->held = NULL;
	g->n_held = g->held_bytes = 0;
}

static void free_reading(struct resync *r, struct reading *g)
{
	if (g->topic)
		g->topic->reading = NULL;
	drop_held(g);
	free(g);
	r->n--;
}

static void wish(struct reading *g, struct sub *sub, enum sub_wish wish)
{
	g->wishes += sub->wish == SUB_NO_WISH;
	sub->wish = wish;
}

/* ---- keys over which connections were lost ---- */

/* Removes the key from the record; returns its losses. */
static unsigned take_poison(struct resync *r, uint64_t key_hash)
{
	for (size_t i = 0; i < r->n_poisons; i++) {
		if (r->poisons[i].key_hash != key_hash)
			continue;
		unsigned losses = r->poisons[i].losses;
		r->n_poisons--;
		memmove(&r->poisons[i], &r->poisons[i + 1],
			(r->n_poisons - i) * sizeof(r->poisons[0]));
		return losses;
	}
	return 0;
}

static void add_loss(struct resync *r, const struct reading *g, unsigned weight, int64_t now)
{
	uint64_t key_hash = g->topic->by_text.hash;
	unsigned losses = take_poison(r, key_hash) + weight;

	if (losses >= BLAME_READ_LOSSES && losses - weight < BLAME_READ_LOSSES)
		log_warning("a subscribed key is not read for ten minutes: connections were lost "
			    "over it; its subscribers are told of a gap");
	if (r->n_poisons == POISONS_MAX)
		take_poison(r, r->poisons[0].key_hash);
	r->poisons[r->n_poisons++] = (struct poison){key_hash, losses, now};
}

static unsigned losses_of(struct resync *r, const struct reading *g, int64_t now)
{
	while (r->n_poisons && now - r->poisons[0].at >= POISON_MS)
		take_poison(r, r->poisons[0].key_hash);
	for (size_t i = 0; i < r->n_poisons; i++) {
		if (r->poisons[i].key_hash == g->topic->by_text.hash)
			return r->poisons[i].losses;
	}
	return 0;
}

/* ---- sending ---- */

static void tell_gap(struct resync *r, struct reading *g);
static void finish(struct resync *r, struct reading *g);

static void send(struct resync *r, struct reading *g, const struct json_value *key, bool alone,
		 int64_t now)
{
	g->state = READING_ASKED;
	g->epoch = r->epoch;
	TAILQ_INSERT_TAIL(&r->working, g, of_queue);
	r->at_work++;
	r->stats->rereads++;
	if (alone)
		router_read_alone(r->router, g, key, now);
	else
		router_read(r->router, g, key, g->hurry, now);
}

static void ask(struct resync *r, struct reading *g, int64_t now)
{
	struct buf json = {0};
	unsigned losses = losses_of(r, g, now);

	json_add_string(&json, topic_text(g->topic));
	struct json_value key = {.text = buf_span(&json), .type = JSON_STRING};
	dequeue(r, g);
	bool covered = topic_is_covered(
		g->topic); /* otherwise changes that the value includes may still come */
	if (covered && losses < BLAME_READ_LOSSES && router_takes_key(r->router, &key, now)) {
		send(r, g, &key, losses >= BLAME_LOSS, now);
	} else {
		tell_gap(r, g);
		finish(r, g);
	}
	buf_release(&json);
}

/* Initial values first, except for one in PATIENT_SHARE readings: new clients may want initial
 * values without end. */
static struct reading *next_reading(struct resync *r)
{
	struct heap_node *first = heap_first(&r->hurried);
	struct reading *patient = TAILQ_FIRST(&r->patient);

	if (!first || (patient && ++r->picked % PATIENT_SHARE == 0))
		return patient;
	r->round = (uint32_t)(first->at >> 32);
	return (struct reading *)(void *)((char *)first - offsetof(struct reading, turn));
}

void resync_pump(struct resync *r, int64_t now)
{
	struct reading *g;

	while (r->started && r->at_work < r->settings.at_once && (g = next_reading(r)))
		ask(r, g, now);
}

void resync_start(struct resync *r, int64_t now)
{
	r->started = true;
	resync_pump(r, now);
}

void resync_read_sent(struct resync *r, void *reading)
{
	struct reading *g = reading;

	if (!g->topic)
		return;
	g->state = READING_SENT;
	/* A reading queued before a loss may be sent on a connection that brings no changes of its
	 * key; and the new token may not cover the key. */
	g->useless = g->epoch != r->epoch || !topic_is_covered(g->topic);
	g->doubtful = false;
	g->changes = g->topic->changes;
	g->last_value = g->topic->last_value;
}

/* ---- held changes ---- */

static bool waits(const struct sub *sub)
{
	return sub->wish == SUB_INITIAL || sub->wish == SUB_RESYNC;
}

static void push_held(struct resync *r, const struct reading *g, struct peer *peer, size_t from,
		      size_t to)
{
	for (size_t i = from; i < to; i++)
		fanout_push(r->fanout, peer, g->held[i]);
}

/* Delivers the held changes to all that wait. The answer will be of no use. */
static void give_up(struct resync *r, struct reading *g)
{
	struct topic *t = g->topic;

	for (uint32_t i = 0; g->n_held && i < t->n; i++) {
		if (waits(t->receivers[i].sub))
			push_held(r, g, t->receivers[i].peer, 0, g->n_held);
	}
	drop_held(g);
	g->useless = true;
}

static bool has_listener(const struct topic *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		if (!t->receivers[i].peer->silent)
			return true;
	}
	return false;
}

void resync_topic(struct resync *r, struct topic *t)
{
	if (!has_listener(t))
		return;
	struct reading *g = reading_of(r, t, NULL);

	if (g->state == READING_SENT)
		give_up(r, g); /* the value may be older than this wish */
	for (uint32_t i = 0; i < t->n; i++) {
		if (t->receivers[i].sub->wish == SUB_NO_WISH && !t->receivers[i].peer->silent)
			wish(g, t->receivers[i].sub, SUB_RESYNC);
	}
}

static void hold(struct reading *g, struct shared_line *shared)
{
	if ((g->n_held & (g->n_held - 1)) == 0) /* grows at each power of two */
		g->held = mem_resize(g->held, (g->n_held ? 2 * g->n_held : 1) * sizeof(*g->held));
	g->held[g->n_held++] = shared_line_ref(shared);
	g->held_bytes += shared->n;
}

bool resync_hold_back(struct resync *r, struct sub *sub, struct shared_line *shared)
{
	struct reading *g = sub->topic->reading;

	if (g->state != READING_SENT || g->useless || !waits(sub))
		return false;
	if (g->n_held && g->held[g->n_held - 1] == shared)
		return true; /* held already, for another subscriber */
	if (g->held_bytes + shared->n > r->settings.held_bytes) {
		give_up(r, g);
		return false;
	}
	hold(g, shared);
	return true;
}

/* Reads the key again. */
static void retry(struct resync *r, struct reading *g)
{
	give_up(r, g);
	enqueue(r, g);
}

/* The router has let go of it. */
static void end_work(struct resync *r, struct reading *g)
{
	r->at_work--;
	TAILQ_REMOVE(&r->working, g, of_queue);
}

void resync_pause(struct resync *r)
{
	struct reading *g;

	r->started = false;
	r->epoch++;
	TAILQ_FOREACH (g, &r->working, of_queue) {
		if (g->topic && g->state == READING_SENT)
			give_up(r, g);
	}
}

/* ---- wishes ---- */

void resync_initial(struct resync *r, struct sub *sub)
{
	struct reading *g = reading_of(r, sub->topic, sub->peer);

	if (g->state != READING_SENT) {
		wish(g, sub, SUB_INITIAL);
	} else if (sub->wish != SUB_INITIAL) {
		/* The value may be older than this wish, which the next reading serves. A resync
		 * that was due comes with it. */
		if (waits(sub))
			push_held(r, g, sub->peer, 0, g->n_held);
		wish(g, sub, SUB_INITIAL_LATER);
	}
}

void resync_forget(struct resync *r, struct sub *sub, bool leaves)
{
	struct reading *g = sub->topic->reading;

	if (sub->wish == SUB_NO_WISH)
		return;
	/* the held changes may match a pattern of the client */
	if (waits(sub) && !leaves)
		push_held(r, g, sub->peer, 0, g->n_held);
	sub->wish = SUB_NO_WISH;
	if (--g->wishes)
		return;
	g->topic->reading = NULL;
	g->topic = NULL;
	if (g->state != READING_QUEUED)
		return; /* freed in resync_read_end() */
	dequeue(r, g);
	free_reading(r, g);
}

/* ---- the answer ---- */

/* The lines to deliver, made once for all subscribers. */
struct outcome {
	uint64_t value_hash;
	size_t n_before; /* the held changes that come before the value */
	struct shared_line *initial, *resync, *gap;
};

static uint64_t told_last(const struct reading *g, const struct sub *sub)
{
	return g->changes > sub->told_at ? g->last_value : sub->told;
}

/* The held changes up to the last one with this value. */
static size_t held_before_value(const struct reading *g, uint64_t value_hash)
{
	size_t i = g->n_held;

	while (i && g->held[i - 1]->value_hash != value_hash)
		i--;
	return i;
}

static void tell_initial(struct resync *r, struct reading *g, const struct outcome *o,
			 struct sub *sub)
{
	push_held(r, g, sub->peer, 0, o->n_before);
	fanout_push(r->fanout, sub->peer, o->initial);
	push_held(r, g, sub->peer, o->n_before, g->n_held);
}

/* If a held change has the value, that change tells it. */
static void tell_resync(struct resync *r, struct reading *g, const struct outcome *o,
			struct sub *sub)
{
	if (!o->n_before && told_last(g, sub) != o->value_hash) {
		r->stats->resyncs++;
		fanout_push(r->fanout, sub->peer, o->resync);
	}
	push_held(r, g, sub->peer, 0, g->n_held);
}

/* The hash of the value that a waiting subscriber was told last. Behind a gap only a change since
 * the reading was sent counts: the client may have read any other value itself. */
static uint64_t told_now(const struct reading *g, const struct outcome *o)
{
	const struct topic *t = g->topic;

	if (g->n_held)
		return g->held[g->n_held - 1]->value_hash;
	if (!o->gap)
		return o->value_hash;
	return t->changes > g->changes ? t->last_value : 0;
}

static void tell(struct resync *r, struct reading *g, const struct outcome *o, struct sub *sub)
{
	if (o->gap) {
		push_held(r, g, sub->peer, 0, g->n_held);
		fanout_push(r->fanout, sub->peer, o->gap);
	} else if (sub->wish == SUB_INITIAL) {
		tell_initial(r, g, o, sub);
	} else {
		tell_resync(r, g, o, sub);
	}
	sub->told = told_now(g, o);
	sub->told_at = g->topic->changes;
	sub->wish = SUB_NO_WISH;
	g->wishes--;
}

/* fanout_push() neither frees a peer nor changes a list of receivers. */
static void tell_all(struct resync *r, struct reading *g, const struct outcome *o)
{
	struct topic *t = g->topic;

	for (uint32_t i = 0; i < t->n; i++) {
		if (waits(t->receivers[i].sub))
			tell(r, g, o, t->receivers[i].sub);
	}
	drop_held(g);
}

static struct shared_line *take_line(struct resync *r, const struct topic *t)
{
	struct span line = buf_span(&r->scratch);
	struct shared_line *shared = shared_line_new(line.n, topic_text(t));

	shared->own = true;
	shared->key_hash = t->by_text.hash;

	memcpy(shared->text, line.p, line.n);
	buf_take(&r->scratch, line.n);
	return shared;
}

static void tell_value(struct resync *r, struct reading *g, const struct json_value *value)
{
	struct span key = topic_text(g->topic);
	int64_t now = r->ops->wall_ms(r->owner);
	struct outcome o = {.value_hash = notification_value_hash(value, r->topics->seed)};

	o.n_before = held_before_value(g, o.value_hash);
	events_add_value(&r->scratch, key, value->text, now, EVENTS_INITIAL);
	o.initial = take_line(r, g->topic);
	events_add_value(&r->scratch, key, value->text, now, EVENTS_RESYNC);
	o.resync = take_line(r, g->topic);
	tell_all(r, g, &o);
	shared_line_unref(o.initial);
	shared_line_unref(o.resync);
}

static void tell_gap(struct resync *r, struct reading *g)
{
	struct outcome o = {0};

	r->stats->gaps++;
	events_add_key_gap(&r->scratch, topic_text(g->topic));
	o.gap = take_line(r, g->topic);
	tell_all(r, g, &o);
	shared_line_unref(o.gap);
}

/* All that waited have been told. Reads the key again for those that came too late. */
static void finish(struct resync *r, struct reading *g)
{
	struct topic *t = g->topic;

	if (!g->wishes) {
		free_reading(r, g);
		return;
	}
	g->tries = g->moves = 0;
	g->hurry = true; /* at the turn that it had, if it had one */
	for (uint32_t i = 0; i < t->n; i++) {
		if (t->receivers[i].sub->wish == SUB_INITIAL_LATER)
			t->receivers[i].sub->wish = SUB_INITIAL;
	}
	enqueue(r, g);
}

static void failed(struct resync *r, struct reading *g)
{
	if (++g->tries < TRIES) {
		retry(r, g);
		return;
	}
	tell_gap(r, g);
	finish(r, g);
}

void resync_doubt(struct resync *r)
{
	struct reading *g;

	TAILQ_FOREACH (g, &r->working, of_queue) {
		if (!g->topic || g->state != READING_SENT)
			continue;
		give_up(r, g);
		g->doubtful = true;
	}
}

static void answered(struct resync *r, struct reading *g, const struct wire_frame *answer)
{
	static const struct json_value nothing = {.type = JSON_NULL};
	bool found = answer->code == CODE_OK && answer->value.text.p;
	const struct json_value *value = found ? &answer->value : &nothing;

	take_poison(r, g->topic->by_text.hash);
	if (g->doubtful) {
		failed(r, g);
	} else if (g->useless || g->epoch != r->epoch) {
		retry(r, g);
	} else if (answer->code >= CODE_FAULT) {
		failed(r, g);
	} else if (found || answer->code == CODE_NOT_FOUND) {
		tell_value(r, g, value);
		finish(r, g);
	} else {
		tell_gap(r, g);
		finish(r, g);
	}
}

void resync_read_end(struct resync *r, void *reading, enum router_read_end end,
		     const struct wire_frame *answer, int64_t now)
{
	struct reading *g = reading;

	end_work(r, g);
	if (!g->topic) {
		free_reading(r, g);
	} else if (end == ROUTER_READ_ELSEWHERE && g->moves++ < MOVES) {
		retry(r, g);
	} else if (end == ROUTER_READ_ANSWERED || end == ROUTER_READ_ELSEWHERE) {
		answered(r, g, answer);
	} else if (end == ROUTER_READ_FAILED || end == ROUTER_READ_LATE) {
		failed(r, g);
	} else if (end == ROUTER_READ_TOO_LONG) {
		tell_gap(r, g);
		finish(r, g);
	} else {
		if (end == ROUTER_READ_BLAMED || end == ROUTER_READ_DOUBTED)
			add_loss(r, g, end == ROUTER_READ_BLAMED ? BLAME_LOSS : BLAME_SUDDEN_LOSS,
				 now);
		retry(r, g);
	}
	resync_pump(r, now);
}
