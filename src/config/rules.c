#include "config/rules.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/overflow_ids.h"

enum { NAME_MAX_BYTES = 64, FAULT_MAX = 600 };

static const char blanks[] = " \t";

enum rule_id {
	RULE_USER,
	RULE_GROUP,
	RULE_READ,
	RULE_WRITE,
	RULE_TOKEN,
	RULE_LOCAL_KEY_FILE,
	RULE_NEXUS,
	RULE_RATE,
	RULE_MAX_IN_FLIGHT,
	RULE_MAX_CLIENTS,
	RULE_MAX_SUBSCRIPTIONS,
	RULE_N
};

struct rules_section {
	struct rules_section *next;
	struct access_section *access;
	char *name;
	unsigned line;
	unsigned given[RULE_N]; /* the line of each setting; 0: not in the section */
	bool bad;               /* one of its users or groups was refused */
};

/* ---- faults ---- */

__attribute__((format(printf, 3, 4))) static void fault(struct rules_reader *r, unsigned line,
							const char *format, ...)
{
	char text[FAULT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	r->fault(r->owner, line, text);
}

/* How many bytes of a word a message repeats: its beginning, not cut within a character. */
static int shown_length(const char *word, size_t n)
{
	size_t most = n < 80 ? n : 80;

	while (most && most < n && ((unsigned char)word[most] & 0xc0) == 0x80)
		most--;
	return (int)most;
}

/* ---- the settings ---- */

/* Where a value stands. */
struct site {
	struct rules_reader *r;
	struct rules_section *s;
	unsigned line;
	const char *setting;
};

/* Names are looked up as getent(1) does; a number need not be in any list. */
static bool parse_id(const char *word, uint32_t *id)
{
	char *end;

	errno = 0;
	unsigned long long n = strtoull(word, &end, 10);
	if (word[0] < '0' || word[0] > '9' || *end || errno || n >= UINT32_MAX)
		return false; /* UINT32_MAX is nobody's: -1 */
	*id = (uint32_t)n;
	return true;
}

static void refuse_name(const struct site *at, const char *kind, const char *word)
{
	at->s->bad = true;
	fault(at->r, at->line, "[access %s] %s: there is no %s '%.*s'", at->s->name, at->setting,
	      kind, shown_length(word, strlen(word)), word);
}

/* The kernel shows all users without a number of their own under this one, so a rule can't tell
 * them apart. */
static void warn_of_nobody(const struct site *at, const char *kind, const char *word, uint32_t id)
{
	char text[FAULT_MAX];

	snprintf(text, sizeof(text),
		 "[access %s] %s: '%.*s' matches nobody: the kernel shows every %s that has no "
		 "number "
		 "in its user namespace as %lu",
		 at->s->name, at->setting, shown_length(word, strlen(word)), word, kind,
		 (unsigned long)id);
	at->r->warning(at->r->owner, at->line, text);
}

static void add_user(const struct site *at, const char *word)
{
	const struct passwd *user = getpwnam(word);
	uint32_t id;

	if (user)
		id = user->pw_uid;
	else if (!parse_id(word, &id)) {
		refuse_name(at, "user", word);
		return;
	}
	access_section_user(at->s->access, id);
	if (id == overflow_ids_ids().uid)
		warn_of_nobody(at, "user", word, id);
}

static void add_group(const struct site *at, const char *word)
{
	const struct group *group = getgrnam(word);
	uint32_t id;

	if (group)
		id = group->gr_gid;
	else if (!parse_id(word, &id)) {
		refuse_name(at, "group", word);
		return;
	}
	access_section_group(at->s->access, id);
	if (id == overflow_ids_ids().gid)
		warn_of_nobody(at, "group", word, id);
}

/* A comment behind a value begins with a semicolon. One that begins with # must not become globs.
 */
static bool is_comment(const struct site *at, const char *word)
{
	if (strcmp(word, "#") != 0)
		return false;
	fault(at->r, at->line,
	      "[access %s] %s: '#' by itself: a comment behind a value begins with ;", at->s->name,
	      at->setting);
	return true;
}

static void add_read(const struct site *at, const char *word)
{
	if (is_comment(at, word))
		return;
	access_section_glob(at->s->access, ACCESS_READ, (struct span){word, strlen(word)});
}

static void add_write(const struct site *at, const char *word)
{
	if (is_comment(at, word))
		return;
	access_section_glob(at->s->access, ACCESS_WRITE, (struct span){word, strlen(word)});
}

static void set_token(const struct site *at, const char *word)
{
	static const char *const names[] = {
		[ACCESS_TOKEN_NO] = "no", [ACCESS_TOKEN_OWN] = "own", [ACCESS_TOKEN_ANY] = "any"};

	for (int i = 0; i < ACCESS_TOKEN_N; i++) {
		if (strcmp(names[i], word) == 0) {
			access_section_token(at->s->access, (enum access_token)i);
			return;
		}
	}
	fault(at->r, at->line, "[access %s] token: '%.*s' is not one of its values: no own any",
	      at->s->name, shown_length(word, strlen(word)), word);
}

static void set_local_key(const struct site *at, const char *path)
{
	struct local_key key;
	const char *other;

	if (!path[0])
		return;
	if (!at->r->key(at->r->owner, at->line, at->s->name, path, &key)) {
		at->s->bad = true;
		return;
	}
	if (!access_section_key(at->s->access, key, &other))
		fault(at->r, at->line,
		      "[access %s] local_key_file: [access %s] has the same key: each section "
		      "needs one of its own",
		      at->s->name, other);
}

static void set_nexus(const struct site *at, const char *word)
{
	if (strcmp(word, "yes") == 0)
		access_section_nexus(at->s->access);
	else if (strcmp(word, "no") != 0)
		fault(at->r, at->line, "[access %s] nexus: '%.*s' is not one of its values: yes no",
		      at->s->name, shown_length(word, strlen(word)), word);
}

static bool parse_count(const char *word, unsigned max, unsigned *out)
{
	uint32_t n;

	if (!parse_id(word, &n) || n < 1 || n > max)
		return false;
	*out = n;
	return true;
}

static void set_limit(const struct site *at, const char *word, size_t place, unsigned max)
{
	struct budget_limits limits = *access_section_limits_of(at->s->access);

	if (parse_count(word, max, (unsigned *)(void *)((char *)&limits + place)))
		access_section_limits(at->s->access, &limits);
	else
		fault(at->r, at->line,
		      "[access %s] %s: '%.*s' is not a whole number from 1 to %u; without the "
		      "setting there is no limit",
		      at->s->name, at->setting, shown_length(word, strlen(word)), word, max);
}

static void set_rate(const struct site *at, const char *word)
{
	set_limit(at, word, offsetof(struct budget_limits, rate), 1000000);
}

static void set_max_in_flight(const struct site *at, const char *word)
{
	set_limit(at, word, offsetof(struct budget_limits, max_in_flight), 65535);
}

static void set_max_clients(const struct site *at, const char *word)
{
	set_limit(at, word, offsetof(struct budget_limits, max_clients), 1000000);
}

static void set_max_subscriptions(const struct site *at, const char *word)
{
	set_limit(at, word, offsetof(struct budget_limits, max_subscriptions), 100000000);
}

static const struct rule {
	const char *name;
	void (*word)(const struct site *at, const char *word);
	bool list; /* several words, separated by blanks; else one */
} rules[] = {
	[RULE_USER] = {"user", add_user, true},
	[RULE_GROUP] = {"group", add_group, true},
	[RULE_READ] = {"read", add_read, true},
	[RULE_WRITE] = {"write", add_write, true},
	[RULE_TOKEN] = {"token", set_token, false},
	[RULE_LOCAL_KEY_FILE] = {"local_key_file", set_local_key, false},
	[RULE_NEXUS] = {"nexus", set_nexus, false},
	[RULE_RATE] = {"rate", set_rate, false},
	[RULE_MAX_IN_FLIGHT] = {"max_in_flight", set_max_in_flight, false},
	[RULE_MAX_CLIENTS] = {"max_clients", set_max_clients, false},
	[RULE_MAX_SUBSCRIPTIONS] = {"max_subscriptions", set_max_subscriptions, false},
};
_Static_assert(sizeof(rules) / sizeof(rules[0]) == RULE_N, "a row for each setting");

static void read_words(const struct site *at, const struct rule *rule, const char *value)
{
	char *copy = mem_strdup(value), *rest = copy, *word;

	while ((word = strsep(&rest, blanks))) {
		if (*word)
			rule->word(at, word);
	}
	free(copy);
}

/* ---- sections ---- */

bool rules_is_section(const char *header)
{
	size_t n = strcspn(header, blanks);

	return n == strlen("access") && strncmp(header, "access", n) == 0;
}

static const struct rules_section *find(const struct rules_reader *r, const char *name)
{
	for (const struct rules_section *s = r->sections; s; s = s->next) {
		if (strcmp(s->name, name) == 0)
			return s;
	}
	return NULL;
}

static void end_section(struct rules_reader *r)
{
	const struct rules_section *s = r->section;

	if (s && !s->bad && access_section_is_idle(s->access))
		fault(r, s->line,
		      "[access %s]: is for nobody: give it a user or a group, by name or number, "
		      "or a local_key_file",
		      s->name);
	r->section = NULL;
}

void rules_section(struct rules_reader *r, unsigned line, const char *header)
{
	const char *name = header + strcspn(header, blanks);
	name += strspn(name, blanks);
	const struct rules_section *same = find(r, name);

	end_section(r);
	if (!name[0]) {
		fault(r, line, "[access]: has no name: write [access NAME]");
	} else if (strlen(name) > NAME_MAX_BYTES) {
		fault(r, line, "[access %.*s...]: its name is longer than %d bytes",
		      shown_length(name, NAME_MAX_BYTES), name, NAME_MAX_BYTES);
	} else if (same) {
		fault(r, line, "[access %s]: is there twice, first in line %u", name, same->line);
	} else if (r->n == ACCESS_SECTIONS_MAX) {
		fault(r, line, "[access %s]: there are more than %d such sections", name,
		      ACCESS_SECTIONS_MAX);
	} else {
		struct rules_section *s = mem_zalloc(sizeof(*s));
		if (!r->rules)
			r->rules = access_rules_new();
		s->access = access_rules_add(r->rules, name);
		s->name = mem_strdup(name);
		s->line = line;
		s->next = r->sections;
		r->section = r->sections = s;
		r->n++;
	}
}

void rules_setting(struct rules_reader *r, unsigned line, const char *name, const char *value)
{
	struct rules_section *s = r->section;
	int id = 0;

	if (!s)
		return; /* it was refused with its section */
	while (id < RULE_N && strcmp(rules[id].name, name) != 0)
		id++;
	struct site at = {r, s, line, name};
	if (id == RULE_N) {
		fault(r, line,
		      "[access %s] %.*s: there is no such setting; the section has: user group "
		      "read write token local_key_file nexus rate max_in_flight max_clients "
		      "max_subscriptions",
		      s->name, shown_length(name, strlen(name)), name);
	} else if (s->given[id]) {
		fault(r, line, "[access %s] %s: is set twice, first in line %u", s->name, name,
		      s->given[id]);
	} else {
		s->given[id] = line;
		if (rules[id].list)
			read_words(&at, &rules[id], value);
		else
			rules[id].word(&at, value);
	}
}

struct access_rules *rules_finish(struct rules_reader *r)
{
	struct rules_section *s;

	end_section(r);
	while ((s = r->sections)) {
		r->sections = s->next;
		free(s->name);
		free(s);
	}
	return r->rules;
}
