/* service.h - state shared by all connections of the sandbox: records, API keys, subscribers.
 *
 * Every request passes through service_run(), which counts it against its key's rate limit.
 * service_publish() sends the notifications of a change, after its answer was queued. */
#pragma once

#include "grant.h"
#include "ops.h"
#include "options.h"
#include "rate.h"
#include "store.h"

struct api_key {
	const char *text;
	unsigned char secret[GRANT_SECRET]; /* signs its tokens */
	struct rate rate;
};

/* A connection with subscriptions. */
struct subscriber {
	const struct grant *grant;
	void (*notify)(struct subscriber *s, struct span text); /* must not remove a subscriber */
	struct subscriber *prev, *next;                         /* service::subscribers */
};

struct service {
	const struct options *options;
	struct store *store;
	struct api_key keys[OPTIONS_KEYS];
	unsigned n_keys;
	struct subscriber *subscribers;
};

/* sv keeps options, which must outlive it. */
void service_init(struct service *sv, const struct options *options);
void service_fini(struct service *sv);

/* Finds an API key by its text, or NULL. */
struct api_key *service_key(struct service *sv, struct span text);

/* Verifies a token. Returns the key that minted it, with its grant, which the caller frees. NULL:
 * it is invalid or has expired. */
struct api_key *service_token(struct service *sv, struct span token, struct grant **grant);

/* Takes one request from the key's rate limit. false: it is used up. */
bool service_may(struct api_key *key);

/* Runs a command of an API key, and of a token if access is not NULL. */
void service_run(struct service *sv, struct api_key *key, const struct pattern *access,
		 const struct command *c, struct outcome *o);
/* Notifies the subscribers of a key that has changed. */
/* command: what has changed the record. first: the answer is not queued yet. Does nothing if
 * --notify-first asks for the other. */
void service_publish(struct service *sv, const struct command *command, bool first);

/* Adds, and removes, a subscriber. */
void service_join(struct service *sv, struct subscriber *s);
void service_leave(struct service *sv, struct subscriber *s);
