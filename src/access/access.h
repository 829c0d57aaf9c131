/* access.h - what each client may do: the access rules, applied to the identity of its socket.
 *
 * A section of the rules names users and groups, and what they may read, write and have tokens for.
 * A client may do what any section that names its user or one of its groups allows. These sections,
 * the client's view, are collected when it connects and when the rules are replaced. A check walks
 * along the key once for each of them and allocates nothing; without rules it is a comparison with
 * NULL.
 *
 * A key must match a glob. A pattern must lie within a glob; since a * in a pattern can only be
 * matched by a *, the glob must match the pattern's text. A range must lie within a glob: all its
 * keys begin with the common prefix of its ends, so the glob must match that prefix and end with *.
 * A range of one key is that key. Keys are compared decoded.
 *
 * Each section has a budget (budget.h), which outlives a replacement of the rules under its name.
 *
 * Refusals are counted. They are logged as far as two token buckets allow: one per client, so that
 * a client does not hide the others, and one for all, against clients that reconnect.
 *
 * This room only decides. The rooms above it ask, and end what new rules forbid. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "access/access_pattern.h"
#include "access/local_keys.h"
#include "requests/budget.h"
#include "requests/pending.h"
#include "codec/request.h"
#include "base/span.h"
#include "codec/stats.h"

/* ---- the rules, which do not change once they are made ---- */

enum { ACCESS_SECTIONS_MAX = 1000 };

enum access_right { ACCESS_READ, ACCESS_WRITE, ACCESS_RIGHT_N };

enum access_token {
	ACCESS_TOKEN_NO,
	ACCESS_TOKEN_OWN, /* subscriptions within what it may read; access_token_pattern() is its
			     access pattern */
	ACCESS_TOKEN_ANY, /* any token */
	ACCESS_TOKEN_N
};

struct access_rules;
struct access_section;

struct access_rules *access_rules_new(void);
void access_rules_free(struct access_rules *rules);

struct access_section *access_rules_add(struct access_rules *rules, const char *name);
void access_section_user(struct access_section *s, uid_t uid);
void access_section_group(struct access_section *s, gid_t gid);
void access_section_glob(struct access_section *s, enum access_right right, struct span glob);
/* Whoever presents this key is of the section. False: the key is another's (or its own) already,
 * and *other is that section's name. */
bool access_section_key(struct access_section *s, struct local_key key, const char **other);
void access_section_nexus(struct access_section *s); /* lets it use HPKV Nexus */
void access_section_token(struct access_section *s, enum access_token token);
void access_section_limits(struct access_section *s, const struct budget_limits *limits);
const struct budget_limits *access_section_limits_of(const struct access_section *s);
/* Are two sets of rules equal, in the same order? NULL: no rules. */
bool access_rules_same(const struct access_rules *a, const struct access_rules *b);
/* Is there any key? */
bool access_rules_have_keys(const struct access_rules *rules);
/* Does it name nobody, and have no key, and so no effect? */
bool access_section_is_idle(const struct access_section *s);

/* ---- in force ---- */

struct access;

struct access *access_new(struct stats *stats);
void access_free(struct access *a); /* after all peers have left */

/* Replaces the rules. NULL: no rules; every client may do everything except mint tokens. The caller
 * owns them and keeps them until they are replaced. The view of a client is of the old rules until
 * access_admit() is called for it. */
void access_set(struct access *a, const struct access_rules *rules);
/* Where there are no rules, who presents this key may do what anybody may; NULL: there is none. */
void access_set_key(struct access *a, const struct local_key *key);
/* The local key that a test is true of, which is asked about every one. False: there is none. */
bool access_find_key(const struct access *a,
		     bool (*test)(const void *arg, const struct local_key *key), const void *arg,
		     struct local_key *found);
/* Is it one of the local keys? */
bool access_knows(const struct access *a, const struct local_key *key);

/* There is no API key that clients' tokens could be made with: an error says so. */
void access_set_keyless(struct access *a, bool keyless);

/* The budget that has no room for another client with this identity; NULL: each has. Counts the
 * refusal. */
const struct budget *access_lacks_room(struct access *a, const struct peer_identity *who);

/* The budgets of the rules in force, in their order; n of them. */
struct budget *const *access_budgets(const struct access *a, size_t *n);

/* Makes or replaces the client's view, and its budgets. */
void access_admit(struct access *a, struct peer *peer, const struct peer_identity *who);
void access_leave(struct peer *peer);

/* The client has come with a token: from now on its operations also have to match the token's
 * access pattern, if that has one; it may subscribe to no pattern then, and have no token. The
 * pattern outlives the client. */
void access_bind(struct peer *peer, struct access_pattern *pattern);

/* Called by access_forbids(). */
const char *access_judge(struct access *a, struct peer *peer, const struct request *r, int64_t now);

/* Why the request is forbidden: a sentence, valid until the next call; NULL: it is allowed. Counts
 * and logs the refusal. */
static inline const char *access_forbids(struct access *a, struct peer *peer,
					 const struct request *r, int64_t now)
{
	return peer->access.view || peer->arrival.by_token || r->op == OP_TOKEN ||
			       request_op_is_nexus(r->op)
		       ? access_judge(a, peer, r, now)
		       : NULL;
}

/* Logs that new rules have ended the client's subscription to this key or pattern, within the
 * limits for refusals. */
void access_log_ended(struct access *a, struct peer *peer, struct span name, int64_t now);

/* May the client read or write this key, or all keys of this glob? May it read all keys from first
 * to last? */
bool access_allows(const struct peer *peer, enum access_right right, struct span text);
bool access_allows_range(const struct peer *peer, struct span first, struct span last);

/* The client's right to tokens. */
enum access_token access_token(const struct peer *peer);

/* Appends a regular expression of the keys that the client may both read and write, as plain bytes.
 * The service has one pattern for both, so it consists of the write globs that lie within a read
 * glob and the read globs that lie within a write glob. It is anchored, ^(?:…)$, and every special
 * character is escaped, so that JavaScript, PCRE, RE2 and others agree on it. (In some, $ also
 * matches before a final newline of the key.) If there are no such keys it matches nothing. */
void access_token_pattern(const struct peer *peer, struct buf *out);
