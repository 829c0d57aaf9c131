#include "subscriptions/topics.h"

#include <stdlib.h>

#include "base/glob.h"
#include "codec/json.h"
#include "base/mem.h"

enum { RECEIVERS_START = 1 };

void topics_init(struct topics *s, uint64_t seed)
{
	*s = (struct topics){.seed = seed};
	TAILQ_INIT(&s->left);
}

void topics_join(struct peer *peer)
{
	peer->topics = (struct topics_peer){.n = 0};
	LIST_INIT(&peer->topics.subs);
}

static void free_topic(struct topics *s, struct topic *t);

void topics_fini(struct topics *s)
{
	struct topic_walk w = {0};
	struct topic *t;

	topics_forget_lists(s, NULL, NULL);
	while ((t = topics_walk(s, &w)))
		free_topic(s, t);
	for (int kind = 0; kind < TOPIC_KIND_N; kind++)
		map_fini(&s->topics[kind]);
	map_fini(&s->pairs);
	radix_fini(&s->globs);
}

/* ---- topics ---- */

uint64_t topics_hash(const struct topics *s, struct span text)
{
	uint64_t hash = json_bytes_hash(text, s->seed);

	return hash ? hash : 1;
}

/* The text that a token has to cover: the key, or all keys with the literal prefix of the
 * pattern. */
static struct span literal_of(enum topic_kind kind, struct span text)
{
	return kind == TOPIC_PATTERN ? glob_literal(text) : text;
}

/* How a list covers a topic that it does not list by itself. An empty scope covers none. */
static enum token_scope_how by_glob(const struct token_scope *scope, enum topic_kind kind,
				    struct span text)
{
	return token_scope_has(scope, literal_of(kind, text)) ? TOKEN_SCOPE_BY_GLOB
							      : TOKEN_SCOPE_LEFT_OUT;
}

struct topic *topics_find_topic(const struct topics *s, enum topic_kind kind, struct span text,
				uint64_t hash)
{
	struct map_node *node = map_first(&s->topics[kind], hash);

	for (; node; node = map_next(node)) {
		struct topic *t = map_entry(node, struct topic, by_text);
		if (span_equal(topic_text(t), text))
			return t;
	}
	return NULL;
}

static struct topic_list *globs_like(struct topics *s, const struct topic *t)
{
	void **place = radix_slot(&s->globs, glob_literal(topic_text(t)));

	if (!*place) {
		struct topic_list *list = mem_alloc(sizeof(*list));
		LIST_INIT(list);
		*place = list;
	}
	return *place;
}

static size_t size_of(size_t text_n)
{
	return offsetof(struct topic, text) + text_n;
}

struct topic *topics_get_topic(struct topics *s, enum topic_kind kind, struct span text)
{
	uint64_t hash = topics_hash(s, text);
	struct topic *t = topics_find_topic(s, kind, text, hash);

	if (t)
		return t;
	t = mem_zalloc(size_of(text.n));
	t->kind = kind;
	t->current = by_glob(&s->current, kind, text);
	t->next = by_glob(&s->next, kind, text);
	t->sequence = ++s->sequence;
	t->text_n = (uint32_t)text.n;
	memcpy(t->text, text.p, text.n);
	s->bytes += size_of(text.n);
	map_add(&s->topics[kind], &t->by_text, hash);
	if (kind == TOPIC_PATTERN)
		LIST_INSERT_HEAD(globs_like(s, t), t, of_literal);
	return t;
}

static void forget_left(struct topics *s, struct topic *t)
{
	if (!t->left_at)
		return;
	TAILQ_REMOVE(&s->left, t, of_left);
	s->n_left--;
	t->left_at = 0;
}

/* Its last subscriber leaves. */
static void leave_topic(struct topics *s, struct topic *t, int64_t now)
{
	if (t->current != TOKEN_SCOPE_LISTED && t->next != TOKEN_SCOPE_LISTED)
		return;
	if (s->n_left == TOPICS_LEFT_MAX)
		forget_left(s, TAILQ_FIRST(&s->left));
	t->left_at = now ? now : 1;
	TAILQ_INSERT_TAIL(&s->left, t, of_left);
	s->n_left++;
}

static void free_topic(struct topics *s, struct topic *t)
{
	struct span literal = glob_literal(topic_text(t));

	forget_left(s, t);
	map_remove(&s->topics[t->kind], &t->by_text);
	if (t->kind == TOPIC_PATTERN) {
		struct topic_list *like = radix_find(&s->globs, literal);
		LIST_REMOVE(t, of_literal);
		if (LIST_EMPTY(like)) {
			radix_remove(&s->globs, literal);
			free(like);
		}
	}
	s->bytes -= size_of(t->text_n) + t->size * sizeof(*t->receivers);
	free(t->receivers);
	free(t);
}

void topics_release(struct topics *s, struct topic *t)
{
	if (!t->n && !t->n_joins && t->current != TOKEN_SCOPE_LISTED &&
	    t->next != TOKEN_SCOPE_LISTED)
		free_topic(s, t);
}

struct topic *topics_walk(const struct topics *s, struct topic_walk *w)
{
	while (w->kind < TOPIC_KIND_N) {
		struct map_node *node = map_walk(&s->topics[w->kind], &w->walk);
		if (node)
			return map_entry(node, struct topic, by_text);
		w->kind++;
		w->walk = (struct map_walk){0};
	}
	return NULL;
}

/* ---- subs ---- */

static uint64_t pair_hash(const struct topics *s, const struct peer *peer, const struct topic *t)
{
	uint64_t pair[2] = {peer->number, t->sequence};

	return json_bytes_hash((struct span){(const char *)pair, sizeof(pair)}, s->seed);
}

struct sub *topics_find_sub(const struct topics *s, const struct peer *peer, const struct topic *t)
{
	struct map_node *node = map_first(&s->pairs, pair_hash(s, peer, t));

	for (; node; node = map_next(node)) {
		struct sub *sub = map_entry(node, struct sub, by_pair);
		if (sub->peer == peer && sub->topic == t)
			return sub;
	}
	return NULL;
}

static void resize_receivers(struct topics *s, struct topic *t, uint32_t size)
{
	s->bytes += size * sizeof(*t->receivers);
	s->bytes -= t->size * sizeof(*t->receivers);
	t->size = size;
	if (size) {
		t->receivers = mem_resize(t->receivers, size * sizeof(*t->receivers));
		return;
	}
	free(t->receivers);
	t->receivers = NULL;
}

bool topic_is_glob(enum topic_kind kind, struct span text)
{
	return kind == TOPIC_PATTERN && glob_literal(text).n + 1 < text.n;
}

struct sub *topics_add_sub(struct topics *s, struct peer *peer, struct topic *t)
{
	struct sub *sub = mem_zalloc(sizeof(*sub));

	if (t->n == t->size)
		resize_receivers(s, t, t->size ? 2 * t->size : RECEIVERS_START);
	*sub = (struct sub){.topic = t, .peer = peer, .receiver = t->n};
	if (t->kind == TOPIC_KEY)
		sub->told_at = t->changes;
	t->receivers[t->n++] = (struct receiver){peer, sub};
	map_add(&s->pairs, &sub->by_pair, pair_hash(s, peer, t));
	LIST_INSERT_HEAD(&peer->topics.subs, sub, of_peer);
	peer->topics.n++;
	peer->topics.n_globs += topic_is_glob(t->kind, topic_text(t));
	s->n++;
	s->bytes += sizeof(*sub);
	if (t->n == 1) {
		forget_left(s, t);
		s->live[t->kind]++;
		s->left_out += !topic_is_covered(t);
	}
	return sub;
}

void topics_remove_sub(struct topics *s, struct sub *sub, int64_t now)
{
	struct topic *t = sub->topic;
	struct receiver *last = &t->receivers[--t->n];

	/* The last receiver replaces it; the order of receivers has no meaning. */
	t->receivers[sub->receiver] = *last;
	last->sub->receiver = sub->receiver;
	if (t->n <= t->size / 4)
		resize_receivers(s, t, t->size / 2);
	map_remove(&s->pairs, &sub->by_pair);
	LIST_REMOVE(sub, of_peer);
	sub->peer->topics.n--;
	sub->peer->topics.n_globs -= topic_is_glob(t->kind, topic_text(t));
	s->n--;
	s->bytes -= sizeof(*sub);
	if (t->n == 0) {
		s->live[t->kind]--;
		s->left_out -= !topic_is_covered(t);
		leave_topic(s, t, now);
	}
	free(sub);
	topics_release(s, t);
}

/* ---- matching ---- */

struct match {
	struct span key;
	void (*visit)(void *owner, struct topic *t);
	void *owner;
};

/* Patterns with one literal prefix, which is a prefix of the key. */
static void match_list(void *arg, void *value)
{
	struct match *m = arg;
	struct topic_list *like = value;
	struct topic *t;

	LIST_FOREACH (t, like, of_literal) {
		size_t n = glob_literal(topic_text(t)).n;
		struct span rest = {t->text + n, t->text_n - n};
		if (t->n && glob_matches(rest, (struct span){m->key.p + n, m->key.n - n}))
			m->visit(m->owner, t);
	}
}

void topics_match_patterns(const struct topics *s, struct span key,
			   void (*visit)(void *owner, struct topic *t), void *owner)
{
	struct match m = {key, visit, owner};

	radix_prefixes(&s->globs, key, match_list, &m);
}

/* ---- lists ---- */

static bool is_wanted(const struct topic *t, uint64_t batch)
{
	return t->n || (t->n_joins && t->batch == batch);
}

/* An item's text is topic::text. */
static struct topic *topic_of(const struct token_scope_item *item)
{
	return (struct topic *)(void *)((char *)(uintptr_t)item->text.p -
					offsetof(struct topic, text));
}

static struct token_scope_item item_of(const struct topic *t)
{
	return (struct token_scope_item){.text = topic_text(t),
					 .pattern = t->kind == TOPIC_PATTERN,
					 .sequence = t->sequence};
}

/* The bytes of its string in a list, at most. A text with ^ becomes a regular expression. */
static size_t listed_max(struct span text)
{
	size_t n = text.n + 3, each = text.n && text.p[0] == '^' ? 8 : 0;

	for (size_t i = 0; i < text.n; i++) {
		bool escaped = (unsigned char)text.p[i] < ' ' || strchr("\"\\\x7f", text.p[i]);
		n += each ? each : escaped ? 5 : 0;
	}
	return n;
}

/* Appends the topics that were left last to the n items; returns the number of all. */
static size_t add_left(struct topics *s, struct token_scope_item *items, size_t n, uint64_t batch,
		       size_t room, int64_t now)
{
	size_t wanted = n, used = 0;
	struct topic *t;

	while ((t = TAILQ_FIRST(&s->left)) && now - t->left_at >= TOPICS_LEFT_MS)
		forget_left(s, t);
	if (!n || TAILQ_EMPTY(&s->left))
		return n;
	for (size_t i = 0; i < n && used <= room; i++)
		used += listed_max(items[i].text);
	TAILQ_FOREACH_REVERSE(t, &s->left, topic_left, of_left)
	{
		used += listed_max(topic_text(t));
		if (used > room)
			break;
		if (!is_wanted(t, batch))
			items[n++] = item_of(t);
	}
	s->listed_left = n > wanted;
	return n;
}

bool topics_forget_left(struct topics *s)
{
	struct topic *t;

	while ((t = TAILQ_FIRST(&s->left)))
		forget_left(s, t);
	return s->listed_left;
}

size_t topics_make_list(struct topics *s, uint64_t batch, size_t budget, int64_t now,
			struct buf *list)
{
	struct token_scope_item *items = mem_alloc((topics_count(s) + 1) * sizeof(*items));
	struct topic_walk w = {0};
	struct topic *t;
	size_t n = 0;

	topics_reject_list(s);
	while ((t = topics_walk(s, &w))) {
		if (is_wanted(t, batch))
			items[n++] = item_of(t);
	}
	s->listed_left = false;
	n = add_left(s, items, n, batch, budget / 2, now);
	size_t strings = token_scope_make(items, n, budget, &s->next, list);
	s->has_next = true;
	w = (struct topic_walk){0};
	while ((t = topics_walk(s, &w)))
		t->next = by_glob(&s->next, t->kind, topic_text(t));
	for (size_t i = 0; i < n; i++)
		topic_of(&items[i])->next = items[i].how;
	free(items);
	return strings;
}

void topics_accept_list(struct topics *s, void (*turned)(void *owner, struct topic *t), void *owner)
{
	struct topic_walk w = {0};
	struct topic *t;

	if (!s->has_next)
		return;
	token_scope_fini(&s->current);
	s->current = s->next;
	s->next = (struct token_scope){0};
	s->has_next = false;
	s->left_out = 0;
	while ((t = topics_walk(s, &w))) {
		bool was = topic_is_covered(t), is = topic_is_covered_next(t);
		t->current = t->next;
		t->next = TOKEN_SCOPE_LEFT_OUT;
		s->left_out += t->n && !is;
		bool turns = t->n && (was ? !is : is && t->missed);
		t->missed = t->n && !is && (was || t->missed);
		if (turns)
			turned(owner, t);
		topics_release(s, t);
	}
}

void topics_reject_list(struct topics *s)
{
	struct topic_walk w = {0};
	struct topic *t;

	if (!s->has_next)
		return;
	token_scope_fini(&s->next);
	s->next = (struct token_scope){0};
	s->has_next = false;
	while ((t = topics_walk(s, &w))) {
		t->next = TOKEN_SCOPE_LEFT_OUT;
		topics_release(s, t);
	}
}

void topics_forget_lists(struct topics *s, void (*turned)(void *owner, struct topic *t),
			 void *owner)
{
	struct topic_walk w = {0};
	struct topic *t;

	topics_reject_list(s);
	token_scope_fini(&s->current);
	s->current = (struct token_scope){0};
	s->left_out = s->live[TOPIC_KEY] + s->live[TOPIC_PATTERN];
	while ((t = topics_walk(s, &w))) {
		bool turns = turned && t->n && topic_is_covered(t);
		t->current = TOKEN_SCOPE_LEFT_OUT;
		t->missed |= turns;
		if (turns)
			turned(owner, t);
		topics_release(s, t);
	}
}
