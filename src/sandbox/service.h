/* service.h - what all connections of the sandbox share: the records, the API keys, who is
 * subscribed.
 *
 * A request of any kind passes through service_run(), which counts it against its key's rate; a
 * change is made known by service_publish(), after its answer has been queued. */
#pragma once

#include "grant.h"
#include "ops.h"
#include "options.h"
#include "rate.h"
#include "store.h"

struct api_key {
	const char *text;
	unsigned char secret[GRANT_SECRET]; /* of its tokens */
	struct rate rate;
};

/* What a subscribed connection is to the service. */
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

void service_init(struct service *sv, const struct options *options);
void service_fini(struct service *sv);

/* The key of this text, or NULL. */
struct api_key *service_key(struct service *sv, struct span text);

/* The key that minted a token which has not expired, and what it grants (its caller's to free), or
 * NULL. */
struct api_key *service_token(struct service *sv, struct span token, struct grant **grant);

/* Takes one request from the key's rate. */
bool service_may(struct api_key *key);

void service_run(struct service *sv, struct api_key *key, const struct pattern *access,
		 const struct command *c, struct outcome *o);
void service_publish(struct service *sv, struct span key);

void service_join(struct service *sv, struct subscriber *s);
void service_leave(struct service *sv, struct subscriber *s);
