#include "access/access.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/glob.h"
#include "codec/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/radix.h"

enum {
	SHOWN_MAX = 80,          /* bytes of a name in a sentence or in the log */
	CLIENT_EVERY_MS = 10000, /* between two logged refusals of a client ... */
	CLIENT_BURST = 5,        /* ... after a burst of so many */
	ALL_EVERY_MS = 200,      /* the same for all clients */
	ALL_BURST = 50,
};

/* ---- globs ---- */

struct glob {
	struct glob *alike; /* the next one with the same literal prefix */
	uint32_t order;     /* counts the globs of all sections */
	uint32_t n, literal_n;
	bool is_open; /* ends with * */
	char text[];
};

struct globs {
	struct radix by_literal; /* lists of struct glob by their literal prefix */
	struct glob **all;       /* owned */
	size_t n;
};

static struct span text_of(const struct glob *g)
{
	return (struct span){g->text, g->n};
}

/* Copies a glob with each run of * as a single *. */
static size_t copy_glob(struct span text, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] != '*' || n == 0 || out[n - 1] != '*')
			out[n++] = text.p[i];
	}
	return n;
}

static void globs_add(struct globs *set, struct span text, uint32_t order)
{
	struct glob *g = mem_alloc(sizeof(*g) + text.n);

	*g = (struct glob){.order = order};
	g->n = (uint32_t)copy_glob(text, g->text);
	g->literal_n = (uint32_t)glob_literal(text_of(g)).n;
	g->is_open = g->n && g->text[g->n - 1] == '*';
	void **place = radix_slot(&set->by_literal, glob_literal(text_of(g)));
	g->alike = *place;
	*place = g;
	if ((set->n & (set->n - 1)) == 0) /* grows at each power of two */
		set->all = mem_resize(set->all, (set->n ? 2 * set->n : 1) * sizeof(*set->all));
	set->all[set->n++] = g;
}

static void globs_fini(struct globs *set)
{
	for (size_t i = 0; i < set->n; i++)
		free(set->all[i]);
	free(set->all);
	radix_fini(&set->by_literal);
}

/* A search in a set of globs. */
struct search {
	struct span text;
	bool range;               /* for all keys with this prefix, not for text itself */
	const struct glob *other; /* a glob of the set, which does not count */
	const struct peer *both;  /* only globs that this client may read and write */
	bool found;
};

static bool may_both(const struct peer *peer, const struct glob *g);

/* Of two equal globs the first counts. */
static bool is_other(const struct search *s, const struct glob *g)
{
	return !s->other || (g != s->other && (g->order < s->other->order ||
					       !span_equal(text_of(g), text_of(s->other))));
}

static void look_at(void *owner, void *value)
{
	struct search *s = owner;

	for (const struct glob *g = value; g && !s->found; g = g->alike) {
		struct span glob = {g->text + g->literal_n, g->n - g->literal_n};
		struct span rest = {s->text.p + g->literal_n, s->text.n - g->literal_n};
		s->found = is_other(s, g) && (g->is_open || !s->range) &&
			   glob_matches(glob, rest) && (!s->both || may_both(s->both, g));
	}
}

static void search(const struct globs *set, struct search *s)
{
	if (!s->found)
		radix_prefixes(&set->by_literal, s->text, look_at, s);
}

/* ---- rules ---- */

struct access_section {
	struct access_rules *rules;
	char *name;
	uint32_t number;
	struct globs globs[ACCESS_RIGHT_N];
	enum access_token token;
	bool nexus;
	struct budget_limits limits;
	bool names_somebody;
};

/* A user or group and a section that names it. */
struct membership {
	uint32_t id;
	uint32_t section;
};

struct memberships {
	struct membership *list; /* sorted once the rules are in force */
	size_t n;
};

struct access_rules {
	struct access_section *section[ACCESS_SECTIONS_MAX]; /* owned */
	uint32_t n;
	uint32_t n_globs;
	struct memberships users, groups;
	struct local_keys keys;
};

struct access_rules *access_rules_new(void)
{
	return mem_zalloc(sizeof(struct access_rules));
}

static void section_free(struct access_section *s)
{
	for (int right = 0; right < ACCESS_RIGHT_N; right++)
		globs_fini(&s->globs[right]);
	free(s->name);
	free(s);
}

void access_rules_free(struct access_rules *rules)
{
	if (!rules)
		return;
	for (uint32_t i = 0; i < rules->n; i++)
		section_free(rules->section[i]);
	free(rules->users.list);
	free(rules->groups.list);
	local_keys_fini(&rules->keys);
	free(rules);
}

struct access_section *access_rules_add(struct access_rules *rules, const char *name)
{
	struct access_section *s = mem_zalloc(sizeof(*s));

	if (rules->n == ACCESS_SECTIONS_MAX)
		abort(); /* the reader of the configuration limits it */
	s->rules = rules;
	s->name = mem_strdup(name);
	s->number = rules->n;
	rules->section[rules->n++] = s;
	return s;
}

static int by_id(const void *a, const void *b)
{
	uint32_t x = ((const struct membership *)a)->id, y = ((const struct membership *)b)->id;

	return x < y ? -1 : x > y;
}

/* Kept sorted: rules are looked up more often than made. */
static void memberships_add(struct memberships *m, uint32_t id, uint32_t section)
{
	if ((m->n & (m->n - 1)) == 0)
		m->list = mem_resize(m->list, (m->n ? 2 * m->n : 1) * sizeof(*m->list));
	size_t i = m->n++;
	for (; i > 0 && m->list[i - 1].id > id; i--)
		m->list[i] = m->list[i - 1];
	m->list[i] = (struct membership){id, section};
}

void access_section_user(struct access_section *s, uid_t uid)
{
	s->names_somebody = true;
	memberships_add(&s->rules->users, uid, s->number);
}

void access_section_group(struct access_section *s, gid_t gid)
{
	s->names_somebody = true;
	memberships_add(&s->rules->groups, gid, s->number);
}

void access_section_glob(struct access_section *s, enum access_right right, struct span glob)
{
	globs_add(&s->globs[right], glob, s->rules->n_globs++);
}

void access_section_token(struct access_section *s, enum access_token token)
{
	s->token = token;
}

bool access_section_key(struct access_section *s, struct local_key key, const char **other)
{
	uint32_t section;

	s->names_somebody = true;
	if (local_keys_add(&s->rules->keys, key, s->number, &section))
		return true;
	*other = s->rules->section[section]->name;
	return false;
}

void access_section_nexus(struct access_section *s)
{
	s->nexus = true;
}

bool access_rules_have_keys(const struct access_rules *rules)
{
	return rules && rules->keys.n > 0;
}

void access_section_limits(struct access_section *s, const struct budget_limits *limits)
{
	s->limits = *limits;
}

const struct budget_limits *access_section_limits_of(const struct access_section *s)
{
	return &s->limits;
}

bool access_section_is_idle(const struct access_section *s)
{
	return !s->names_somebody;
}

static bool globs_same(const struct globs *a, const struct globs *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		if (!span_equal(text_of(a->all[i]), text_of(b->all[i])))
			return false;
	}
	return true;
}

static bool sections_same(const struct access_section *a, const struct access_section *b)
{
	return strcmp(a->name, b->name) == 0 && a->token == b->token && a->nexus == b->nexus &&
	       memcmp(&a->limits, &b->limits, sizeof(a->limits)) == 0 &&
	       globs_same(&a->globs[ACCESS_READ], &b->globs[ACCESS_READ]) &&
	       globs_same(&a->globs[ACCESS_WRITE], &b->globs[ACCESS_WRITE]);
}

static bool memberships_same(const struct memberships *a, const struct memberships *b)
{
	return a->n == b->n &&
	       (a->n == 0 || memcmp(a->list, b->list, a->n * sizeof(*a->list)) == 0);
}

bool access_rules_same(const struct access_rules *a, const struct access_rules *b)
{
	if (!a || !b)
		return a == b;
	if (a->n != b->n || !memberships_same(&a->users, &b->users) ||
	    !memberships_same(&a->groups, &b->groups) || !local_keys_same(&a->keys, &b->keys))
		return false;
	for (uint32_t i = 0; i < a->n; i++) {
		if (!sections_same(a->section[i], b->section[i]))
			return false;
	}
	return true;
}

/* ---- views ---- */

struct access_view {
	enum access_token token;
	bool nexus;
	size_t n;
	const struct access_section *section[];
};

/* A token bucket as a time: tokens are used up until then. */
static bool bucket_takes(int64_t *until, int64_t now, int64_t every, int64_t burst)
{
	int64_t next = (*until > now ? *until : now) + every;

	if (next - now > burst * every)
		return false;
	*until = next;
	return true;
}

struct access {
	const struct access_rules *rules; /* or NULL */
	struct local_key open_key;        /* where there are none: everybody's who has no user */
	bool has_open_key;
	struct budget **budgets; /* one for each of their sections */
	size_t n_budgets;
	struct stats *stats;
	int64_t refusals_at; /* the bucket for all clients */
	bool keyless;
	uint64_t unlogged; /* refusals since the last logged one */
	struct buf name, other;
	char why[SHOWN_MAX + 200];
};

struct access *access_new(struct stats *stats)
{
	struct access *a = mem_zalloc(sizeof(*a));

	a->stats = stats;
	return a;
}

static void free_budgets(struct budget **budgets, size_t n)
{
	for (size_t i = 0; i < n; i++)
		budget_unref(budgets[i]);
	free(budgets);
}

void access_free(struct access *a)
{
	free_budgets(a->budgets, a->n_budgets);
	buf_release(&a->name);
	buf_release(&a->other);
	free(a);
}

static void warn_of_tokens(const struct access_section *s)
{
	const struct globs *write = &s->globs[ACCESS_WRITE];

	for (size_t i = 0; s->token == ACCESS_TOKEN_OWN && i < write->n; i++) {
		struct search q = {.text = text_of(write->all[i])};
		search(&s->globs[ACCESS_READ], &q);
		if (q.found)
			continue;
		log_warning("[access %s] token: %.*s is to be written, but not all of it to be "
			    "read: tokens are for what may be both",
			    s->name, (int)q.text.n, q.text.p);
		return;
	}
}

void access_set_keyless(struct access *a, bool keyless)
{
	a->keyless = keyless;
}

static struct budget *find_budget(const struct access *a, const char *name)
{
	for (size_t i = 0; i < a->n_budgets; i++) {
		if (strcmp(a->budgets[i]->name, name) == 0)
			return budget_ref(a->budgets[i]);
	}
	return budget_new(name);
}

static void set_budgets(struct access *a, const struct access_rules *rules)
{
	size_t n = rules ? rules->n : 0;
	struct budget **budgets = mem_alloc((n + 1) * sizeof(struct budget *));

	for (size_t i = 0; i < n; i++) {
		budgets[i] = find_budget(a, rules->section[i]->name);
		budget_set(budgets[i], &rules->section[i]->limits);
	}
	free_budgets(a->budgets, a->n_budgets);
	a->budgets = budgets;
	a->n_budgets = n;
}

struct budget *const *access_budgets(const struct access *a, size_t *n)
{
	*n = a->n_budgets;
	return a->budgets;
}

void access_set(struct access *a, const struct access_rules *rules)
{
	set_budgets(a, rules);
	a->rules = rules;
	for (uint32_t i = 0; rules && i < rules->n; i++)
		warn_of_tokens(rules->section[i]);
}

void access_set_key(struct access *a, const struct local_key *key)
{
	a->has_open_key = key != NULL;
	if (key)
		a->open_key = *key;
}

bool access_knows(const struct access *a, const struct local_key *key)
{
	uint32_t section;

	if (a->rules)
		return local_keys_find(&a->rules->keys, key, &section);
	return a->has_open_key && local_key_same(&a->open_key, key);
}

bool access_find_key(const struct access *a,
		     bool (*test)(const void *arg, const struct local_key *key), const void *arg,
		     struct local_key *found)
{
	const struct local_keys *keys = a->rules ? &a->rules->keys : NULL;
	bool any = false;

	for (size_t i = 0; keys && i < keys->n; i++) {
		if (!test(arg, &keys->entry[i].key))
			continue;
		*found = keys->entry[i].key;
		any = true;
	}
	if (keys || !a->has_open_key || !test(arg, &a->open_key))
		return any;
	*found = a->open_key;
	return true;
}

static void mark(const struct memberships *m, uint32_t id, bool *marked)
{
	const struct membership key = {.id = id},
				*found = m->n ? bsearch(&key, m->list, m->n, sizeof(key), by_id)
					      : NULL;

	if (!found)
		return;
	while (found > m->list && found[-1].id == id)
		found--;
	for (; found < m->list + m->n && found->id == id; found++)
		marked[found->section] = true;
}

/* Marks the sections that name it; returns their number. */
static size_t mark_sections(const struct access_rules *rules, const struct peer_identity *who,
			    bool *marked)
{
	size_t n = 0;
	uint32_t section;

	if (who->key && local_keys_find(&rules->keys, who->key, &section))
		marked[section] = true;
	if (who->known) {
		mark(&rules->users, who->uid, marked);
		mark(&rules->groups, who->gid, marked);
		for (size_t i = 0; i < who->n_groups; i++)
			mark(&rules->groups, who->groups[i], marked);
	}
	for (uint32_t i = 0; i < rules->n; i++)
		n += marked[i];
	return n;
}

const struct budget *access_lacks_room(struct access *a, const struct peer_identity *who)
{
	bool marked[ACCESS_SECTIONS_MAX] = {false};

	if (!a->rules)
		return NULL;
	mark_sections(a->rules, who, marked);
	for (uint32_t i = 0; i < a->rules->n; i++) {
		struct budget *b = a->budgets[i];
		if (!marked[i] || !b->limits.max_clients || b->clients < b->limits.max_clients)
			continue;
		b->refused[BUDGET_TOO_MANY_CLIENTS]++;
		return b;
	}
	return NULL;
}

static void free_view(struct peer *peer)
{
	free(peer->access.view);
	peer->access.view = NULL;
}

void access_admit(struct access *a, struct peer *peer, const struct peer_identity *who)
{
	const struct access_rules *rules = a->rules;
	bool marked[ACCESS_SECTIONS_MAX] = {false};

	peer->arrival.by_key = who->by_key;
	free_view(peer);
	if (!rules) {
		budget_admit(peer, NULL);
		return;
	}
	size_t n = mark_sections(rules, who, marked);
	struct budgets *budgets = budgets_new(n);
	struct access_view *v = mem_alloc(sizeof(*v) + n * sizeof(v->section[0]));
	*v = (struct access_view){.token = ACCESS_TOKEN_NO};
	for (uint32_t i = 0; i < rules->n; i++) {
		if (!marked[i])
			continue;
		budgets->budget[v->n] = budget_ref(a->budgets[i]);
		v->section[v->n++] = rules->section[i];
		v->nexus |= rules->section[i]->nexus;
		if (rules->section[i]->token > v->token)
			v->token = rules->section[i]->token;
	}
	peer->access.view = v;
	budget_admit(peer, budgets);
}

void access_leave(struct peer *peer)
{
	free_view(peer);
	budget_admit(peer, NULL);
}

static bool find(const struct peer *peer, enum access_right right, struct search *s)
{
	const struct access_view *v = peer->access.view;

	for (size_t i = 0; i < v->n && !s->found; i++)
		search(&v->section[i]->globs[right], s);
	return s->found;
}

bool access_allows(const struct peer *peer, enum access_right right, struct span text)
{
	return !peer->access.view || find(peer, right, &(struct search){.text = text});
}

bool access_allows_range(const struct peer *peer, struct span first, struct span last)
{
	struct search s = {.text = first, .range = true};
	size_t common = 0;

	if (!peer->access.view)
		return true;
	if (span_equal(first, last))
		return access_allows(peer, ACCESS_READ, first);
	while (common < first.n && common < last.n && first.p[common] == last.p[common])
		common++;
	s.text.n = common;
	return find(peer, ACCESS_READ, &s);
}

enum access_token access_token(const struct peer *peer)
{
	return peer->access.view ? peer->access.view->token : ACCESS_TOKEN_NO;
}

/* ---- refusals ---- */

/* Copies as much of a name as fits in a sentence: printable, whole characters. */
static int show(char out[SHOWN_MAX + 4], struct span name)
{
	char escaped[6 * SHOWN_MAX];
	size_t n, whole = name.n < SHOWN_MAX ? name.n : SHOWN_MAX;

	while (whole < name.n && whole && ((unsigned char)name.p[whole] & 0xc0) == 0x80)
		whole--;
	/* Shortened until its escaped form fits. */
	while ((n = json_escape((struct span){name.p, whole}, escaped)) > SHOWN_MAX)
		do
			whole--;
		while (whole && ((unsigned char)name.p[whole] & 0xc0) == 0x80);
	return snprintf(out, SHOWN_MAX + 4, "%.*s%s", (int)n, escaped, whole < name.n ? "..." : "");
}

static void log_refusal(struct access *a, struct peer *peer, int64_t now, const char *what)
{
	if (log_level() < LOG_LEVEL_NOTICE)
		return;
	if (!bucket_takes(&peer->access.refusals_at, now, CLIENT_EVERY_MS, CLIENT_BURST) ||
	    !bucket_takes(&a->refusals_at, now, ALL_EVERY_MS, ALL_BURST)) {
		a->unlogged++;
		return;
	}
	if (a->unlogged)
		log_notice("access rules: %llu more refusals than are logged",
			   (unsigned long long)a->unlogged);
	a->unlogged = 0;
	if (peer->arrival.by_key && peer->access.view && peer->access.view->n)
		log_notice("client %llu (the local key of [access %s]): forbidden: %s",
			   (unsigned long long)peer->number, peer->access.view->section[0]->name,
			   what);
	else
		log_notice("client %llu (pid %ld, uid %ld): forbidden: %s",
			   (unsigned long long)peer->number, (long)peer->pid, (long)peer->uid,
			   what);
}

static const char *const rights[] = {"read", "write"};
_Static_assert(sizeof(rights) / sizeof(rights[0]) == ACCESS_RIGHT_N, "a word for each right");

/* Why the client lacks the right to a name in the request; NULL: it has it. */
static const char *lacks(struct access *a, const struct peer *peer, enum request_op op,
			 enum access_right right, const struct json_value *name)
{
	struct span text = json_string_text(name, &a->name);
	char shown[SHOWN_MAX + 4];

	if (access_allows(peer, right, text))
		return NULL;
	int n = show(shown, text);
	snprintf(a->why, sizeof(a->why), "%s: no access rule lets this client %s \"%.*s\"",
		 request_op_name(op), rights[right], n, shown);
	return a->why;
}

static const char *lacks_any(struct access *a, const struct peer *peer, enum request_op op,
			     const struct json_value *list)
{
	struct json_array_reader reader;
	struct json_value name;
	const char *why = NULL;

	if (!list->text.p)
		return NULL;
	json_array_begin(&reader, list);
	while (!why && json_array_next(&reader, &name))
		why = lacks(a, peer, op, ACCESS_READ, &name);
	return why;
}

static const char *judge_range(struct access *a, const struct peer *peer, const struct request *r)
{
	struct span first = json_string_text(&r->key, &a->name),
		    last = json_string_text(&r->end_key, &a->other);
	char shown[2][SHOWN_MAX + 4];

	if (access_allows_range(peer, first, last))
		return NULL;
	int n = show(shown[0], first), m = show(shown[1], last);
	snprintf(a->why, sizeof(a->why),
		 "range: no access rule lets this client read all from \"%.*s\" to \"%.*s\"", n,
		 shown[0], m, shown[1]);
	return a->why;
}

static const char *judge_subscribe(struct access *a, const struct peer *peer,
				   const struct request *r)
{
	const char *why = NULL;

	if (r->key.text.p)
		why = lacks(a, peer, r->op, ACCESS_READ, &r->key);
	if (!why && r->pattern.text.p)
		why = lacks(a, peer, r->op, ACCESS_READ, &r->pattern);
	if (!why)
		why = lacks_any(a, peer, r->op, &r->keys);
	return why ? why : lacks_any(a, peer, r->op, &r->patterns);
}

/* The service takes a string that begins with ^ for a regular expression. */
static const char *has_regex(struct access *a, const struct json_value *list)
{
	struct json_array_reader reader;
	struct json_value name;

	if (!list->text.p)
		return NULL;
	json_array_begin(&reader, list);
	while (json_array_next(&reader, &name)) {
		struct span text = json_string_text(&name, &a->name);
		if (text.n && text.p[0] == '^')
			return "token: a string that begins with ^ is a regular expression to the "
			       "service: "
			       "the access rules let this client ask for keys and globs only";
	}
	return NULL;
}

static bool may_read_something(const struct peer *peer)
{
	const struct access_view *v = peer->access.view;

	for (size_t i = 0; v && i < v->n; i++) {
		if (v->section[i]->globs[ACCESS_READ].n)
			return true;
	}
	return !v;
}

/* A * is a wildcard in both lists: older services have one in subscribeKeys as well. */
static const char *judge_token(struct access *a, const struct peer *peer, const struct request *r)
{
	enum access_token token = access_token(peer);

	if (token == ACCESS_TOKEN_ANY)
		return NULL;
	if (token == ACCESS_TOKEN_NO && !r->local)
		return a->keyless ? "token: this hpkvd has no API key"
				  : "token: no access rule lets this client mint tokens";
	if (token == ACCESS_TOKEN_NO && !may_read_something(peer))
		return "token: no access rule lets this client read anything";
	if (token == ACCESS_TOKEN_OWN && r->access_pattern.text.p)
		return "token: the access rules do not let this client choose the accessPattern: "
		       "leave it out, and it is written for what the client may write";
	const char *why = has_regex(a, &r->subscribe_keys);
	if (!why)
		why = has_regex(a, &r->subscribe_patterns);
	if (!why)
		why = lacks_any(a, peer, r->op, &r->subscribe_keys);
	return why ? why : lacks_any(a, peer, r->op, &r->subscribe_patterns);
}

static const char *judge_nexus(const struct peer *peer)
{
	return peer->access.view && peer->access.view->nexus
		       ? NULL
		       : "no access rule lets this client use HPKV Nexus";
}

/* ---- clients with a token ---- */

void access_bind(struct peer *peer, struct access_pattern *pattern)
{
	peer->arrival.by_token = true;
	peer->access.pattern = pattern;
}

static const char *mismatch(struct access *a, const struct peer *peer, enum request_op op,
			    const struct json_value *name)
{
	struct span text = json_string_text(name, &a->name);
	struct access_pattern *pattern = peer->access.pattern;
	char shown[SHOWN_MAX + 4];

	if (access_pattern_match(pattern, text) == ACCESS_MATCH_YES)
		return NULL;
	if (access_pattern_tell(pattern))
		log_warning("client %llu: the access pattern of its token takes too long to be "
			    "matched: it forbids every key from now on",
			    (unsigned long long)peer->number);
	int n = show(shown, text);
	snprintf(a->why, sizeof(a->why),
		 "%s: \"%.*s\" is not within the access pattern of the token", request_op_name(op),
		 n, shown);
	return a->why;
}

static const char *mismatch_any(struct access *a, const struct peer *peer, enum request_op op,
				const struct json_value *list)
{
	struct json_array_reader reader;
	struct json_value name;
	const char *why = NULL;

	if (!list->text.p)
		return NULL;
	json_array_begin(&reader, list);
	while (!why && json_array_next(&reader, &name))
		why = mismatch(a, peer, op, &name);
	return why;
}

static const char *judge_by_pattern(struct access *a, const struct peer *peer,
				    const struct request *r)
{
	const char *why = NULL;

	switch (r->op) {
	case OP_RANGE:
		why = mismatch(a, peer, r->op, &r->key);
		return why ? why : mismatch(a, peer, r->op, &r->end_key);
	case OP_GET:
	case OP_SET:
	case OP_PATCH:
	case OP_DELETE:
	case OP_INCREMENT:
		return mismatch(a, peer, r->op, &r->key);
	case OP_SUBSCRIBE:
		if (r->pattern.text.p || r->patterns.text.p)
			return "subscribe: a client with a token that has an access pattern may "
			       "subscribe to single keys only";
		if (r->key.text.p)
			why = mismatch(a, peer, r->op, &r->key);
		return why ? why : mismatch_any(a, peer, r->op, &r->keys);
	case OP_SEARCH:
	case OP_QUERY:
		return "a client with a token that has an access pattern may not use HPKV Nexus, "
		       "which heeds no pattern";
	case OP_UNSUBSCRIBE:
	case OP_TOKEN:
	case OP_PING:
	case OP_STATUS:
	case OP_STATS:
	case OP_N:
		break;
	}
	return NULL;
}

static const char *judge_by_token(struct access *a, const struct peer *peer,
				  const struct request *r)
{
	if (r->op == OP_TOKEN)
		return "token: a client that has come with a token may not have another";
	return peer->access.pattern ? judge_by_pattern(a, peer, r) : NULL;
}

static const char *judge(struct access *a, const struct peer *peer, const struct request *r)
{
	switch (r->op) {
	case OP_TOKEN:
		return judge_token(a, peer, r);
	case OP_SEARCH:
	case OP_QUERY:
		return judge_nexus(peer);
	case OP_GET:
		return lacks(a, peer, r->op, ACCESS_READ, &r->key);
	case OP_SET:
	case OP_PATCH:
	case OP_DELETE:
	case OP_INCREMENT:
		return lacks(a, peer, r->op, ACCESS_WRITE, &r->key);
	case OP_RANGE:
		return judge_range(a, peer, r);
	case OP_SUBSCRIBE:
		return judge_subscribe(a, peer, r);
	case OP_UNSUBSCRIBE: /* always allowed, also after a right was lost */
	case OP_PING:
	case OP_STATUS:
	case OP_STATS:
	case OP_N:
		break;
	}
	return NULL;
}

const char *access_judge(struct access *a, struct peer *peer, const struct request *r, int64_t now)
{
	const char *why = peer->arrival.by_token ? judge_by_token(a, peer, r) : NULL;

	if (!why)
		why = judge(a, peer, r);
	if (why) {
		a->stats->requests_forbidden++;
		log_refusal(a, peer, now, why);
	}
	return why;
}

void access_log_ended(struct access *a, struct peer *peer, struct span name, int64_t now)
{
	char shown[SHOWN_MAX + 4];
	int n = show(shown, name);

	snprintf(a->why, sizeof(a->why),
		 "a subscription ends: no access rule lets this client read \"%.*s\" any more", n,
		 shown);
	log_refusal(a, peer, now, a->why);
}

/* ---- tokens ---- */

/* Escapes the characters that are special in some dialect and literal after a backslash in all. A *
 * becomes any character, newlines included. */
static void write_glob(const struct glob *g, struct buf *out)
{
	for (size_t i = 0; i < g->n; i++) {
		char c = g->text[i];
		if (c == '*') {
			buf_addf(out, "[\\s\\S]*");
			continue;
		}
		if (c && strchr("\\^$.|?+()[]{}", c))
			buf_addf(out, "\\");
		buf_add(out, &c, 1);
	}
}

static bool may_both(const struct peer *peer, const struct glob *g)
{
	return access_allows(peer, ACCESS_READ, text_of(g)) &&
	       access_allows(peer, ACCESS_WRITE, text_of(g));
}

/* A glob within another one only makes the token longer. */
static bool is_spare(const struct peer *peer, const struct glob *g)
{
	struct search s = {.text = text_of(g), .other = g, .both = peer};

	return find(peer, ACCESS_WRITE, &s) || find(peer, ACCESS_READ, &s);
}

static void write_globs(const struct peer *peer, const struct globs *set, const char **between,
			struct buf *out)
{
	for (size_t i = 0; i < set->n; i++) {
		if (!may_both(peer, set->all[i]) || is_spare(peer, set->all[i]))
			continue;
		buf_addf(out, "%s", *between);
		write_glob(set->all[i], out);
		*between = "|";
	}
}

void access_token_pattern(const struct peer *peer, struct buf *out)
{
	const struct access_view *v = peer->access.view;
	const char *between = "";

	buf_addf(out, "^(?:");
	for (size_t i = 0; v && i < v->n; i++) {
		write_globs(peer, &v->section[i]->globs[ACCESS_WRITE], &between, out);
		write_globs(peer, &v->section[i]->globs[ACCESS_READ], &between, out);
	}
	if (!between[0])
		buf_addf(out, "a^"); /* never matches */
	buf_addf(out, ")$");
}
