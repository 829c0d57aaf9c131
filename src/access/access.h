/* access.h - what each client may do: the rules of the configuration, applied to whom its socket
 * belongs to.
 *
 * A section of the rules names users and groups, and what they may read, write and have tokens for;
 * a client may do what any section that names its user or one of its groups allows. Which sections
 * these are is found once for each client (its view) and again when the rules are replaced; a check
 * then costs a walk along the key for each of them, allocates nothing, and where there are no rules
 * it is one comparison with NULL.
 *
 * A key has to match a glob. A pattern has to lie inside one: since no glob has a literal *, that
 * is so if the glob matches the pattern's own text, whose * nothing but a * can match. A range has
 * to lie inside one as well: all keys between two ends begin with what the ends have in common, so
 * the glob has to match that, and to end with a *. A range of one key is that key. Keys are
 * compared decoded.
 *
 * Refusals are counted and logged, no faster than buckets allow: one of each client, so that one
 * does not hide the others, and one of all, for those who come again and again.
 *
 * It decides. Who is asked when, and what happens to what was begun under other rules, is the
 * business of dispatch, feed, router and issuer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "requests/pending.h"
#include "codec/request.h"
#include "base/span.h"
#include "codec/stats.h"

/* ---- the rules: made by whoever reads the configuration, then never changed ---- */

enum { ACCESS_SECTIONS_MAX = 1000 };

enum access_right { ACCESS_READ, ACCESS_WRITE, ACCESS_RIGHT_N };

enum access_token {
	ACCESS_TOKEN_NO,
	ACCESS_TOKEN_OWN, /* subscriptions inside what it may read; the access pattern is written
			     here, from what it may both write and read */
	ACCESS_TOKEN_ANY, /* whatever it asks for */
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
void access_section_token(struct access_section *s, enum access_token token);
/* Do two sets of rules say the same, in the same order? NULL: none. */
bool access_rules_same(const struct access_rules *a, const struct access_rules *b);
/* Names nobody: it would never count. */
bool access_section_is_idle(const struct access_section *s);

/* ---- in force ---- */

struct access;

struct access *access_new(struct stats *stats);
void access_free(struct access *a); /* all peers have left */

/* Replaces the rules; NULL: there are none, so everybody may do everything but mint tokens. They
 * are the caller's and stay as they are until they are replaced. Each client's view is of the old
 * ones until access_admit() was called for it. */
void access_set(struct access *a, const struct access_rules *rules);

/* There is no API key here that clients' tokens could be made with: an error says so. */
void access_set_keyless(struct access *a, bool keyless);

/* Makes the client's view, also in the place of an earlier one. */
void access_admit(struct access *a, struct peer *peer, const struct peer_identity *who);
void access_leave(struct peer *peer);

/* Of one whom rules concern; access_forbids() asks. */
const char *access_judge(struct access *a, struct peer *peer, const struct request *r, int64_t now);

/* Why the request is forbidden: a sentence, counted and logged, valid until the next call; NULL: it
 * is not. Of a request that comes, or that still waits when the rules have changed. */
static inline const char *access_forbids(struct access *a, struct peer *peer,
					 const struct request *r, int64_t now)
{
	return peer->access.view || r->op == OP_TOKEN ? access_judge(a, peer, r, now) : NULL;
}

/* Logs that the client's subscription to this key or pattern has ended because the rules changed;
 * as sparingly as refusals. */
void access_log_ended(struct access *a, struct peer *peer, struct span name, int64_t now);

/* May the client read, or write, the key, or all keys of the glob? All keys from the first to the
 * last? */
bool access_allows(const struct peer *peer, enum access_right right, struct span text);
bool access_allows_range(const struct peer *peer, struct span first, struct span last);

/* How far its right to tokens goes. */
enum access_token access_token(const struct peer *peer);

/* Appends a regular expression, as plain bytes, of the keys that the client may write and read, as
 * the service has one pattern for both: its write globs that lie inside a read glob, and the other
 * way round. Anchored, ^(?:…)$, with every special character escaped, so that it means the same to
 * JavaScript, PCRE, RE2 and their like. (To some of these $ also stands before a newline that ends
 * the key.) If there are no such keys it matches nothing. */
void access_token_pattern(const struct peer *peer, struct buf *out);
