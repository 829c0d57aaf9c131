#include "mint.h"

#include <stdlib.h>

#include "clock.h"
#include "mem.h"
#include "timer.h"

struct mint {
	struct event_base *base;
	struct issuer *issuer;
	struct minter *minter;
	struct event *timer; /* issuer_wake() */
	const char *api_key; /* secret; the settings' */
};

/* One request under way. */
struct minting {
	struct mint *mint;
	void *ask; /* the issuer's */
	struct token_request *request;
};

static void on_token(void *owner, const struct token_answer *answer)
{
	struct minting *under_way = owner;
	struct issuer *issuer = under_way->mint->issuer;
	void *ask = under_way->ask;
	struct issuer_answer known = {answer->token, answer->http_status, answer->retry_after_s,
				      answer->why};

	free(under_way);
	issuer_minted(issuer, ask, &known, clock_mono_ms());
}

static void *issuer_mints(void *owner, const struct issuer_wish *wish, void *ask)
{
	struct mint *m = owner;
	struct minting *under_way = mem_zalloc(sizeof(*under_way));
	struct token_wish token = {
		.api_key = m->api_key,
		.subscribe_keys = wish->subscribe_keys,
		.subscribe_patterns = wish->subscribe_patterns,
		.access_pattern = wish->access_pattern,
	};

	under_way->mint = m;
	under_way->ask = ask;
	under_way->request = token_mint(m->minter, &token, on_token, under_way);
	return under_way;
}

static void issuer_cancels(void *owner, void *minting)
{
	struct minting *under_way = minting;

	(void)owner;
	token_cancel(under_way->request);
	free(under_way);
}

static void issuer_wants_wake(void *owner, int64_t at)
{
	struct mint *m = owner;

	timer_start(m->timer, at - clock_mono_ms());
}

static const struct issuer_ops issuer_ops = {
	.mint = issuer_mints,
	.cancel = issuer_cancels,
	.wake_at = issuer_wants_wake,
};

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct mint *m = arg;

	(void)fd;
	(void)what;
	issuer_wake(m->issuer, clock_mono_ms());
}

struct mint *mint_new(struct event_base *base, const struct mint_settings *settings,
		      struct router *router, struct access *access, struct stats *stats)
{
	struct mint *m = mem_zalloc(sizeof(*m));

	*m = (struct mint){
		.base = base,
		.issuer = issuer_new(&settings->issuer, &issuer_ops, m, router, access, stats),
		.minter = minter_new(base, &settings->minter),
		.timer = timer_new(base, on_timer, m),
		.api_key = settings->api_key,
	};
	return m;
}

void mint_free(struct mint *m)
{
	minter_free(m->minter);
	event_free(m->timer);
	issuer_free(m->issuer);
	free(m);
}

struct issuer *mint_issuer(struct mint *m)
{
	return m->issuer;
}

void mint_set(struct mint *m, const struct mint_settings *settings)
{
	issuer_interrupt(m->issuer);
	minter_free(m->minter);
	m->minter = minter_new(m->base, &settings->minter);
	m->api_key = settings->api_key;
	issuer_set(m->issuer, &settings->issuer);
	issuer_review(m->issuer, clock_mono_ms());
}
