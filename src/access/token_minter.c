#include "access/token_minter.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/timer.h"

struct token_minter {
	struct event_base *base;
	struct token_requests *token_requests;
	struct token_client *minter;
	struct event *timer; /* for token_requests_wake() */
	const char *api_key; /* secret; owned by the owner of the settings */
	const struct token_minter_ops *ops;
	void *owner;
};

/* A request being minted. */
struct minting {
	struct token_minter *mint;
	void *ask; /* token_requests' own */
	struct token_client_request *request;
};

static void on_token(void *owner, const struct token_client_answer *answer)
{
	struct minting *under_way = owner;
	struct token_requests *token_requests = under_way->mint->token_requests;
	void *ask = under_way->ask;
	struct token_requests_answer known = {answer->token, answer->http_status,
					      answer->retry_after_s, answer->why};

	free(under_way);
	token_requests_minted(token_requests, ask, &known, clock_mono_ms());
}

static void *start_minting(void *owner, const struct token_requests_wish *wish, void *ask)
{
	struct token_minter *m = owner;
	struct minting *under_way = mem_zalloc(sizeof(*under_way));
	struct token_client_params token = {
		.api_key = m->api_key,
		.subscribe_keys = wish->subscribe_keys,
		.subscribe_patterns = wish->subscribe_patterns,
		.access_pattern = wish->access_pattern,
	};

	under_way->mint = m;
	under_way->ask = ask;
	under_way->request = token_client_mint(m->minter, &token, on_token, under_way);
	return under_way;
}

static void cancel_minting(void *owner, void *minting)
{
	struct minting *under_way = minting;

	(void)owner;
	token_client_cancel(under_way->request);
	free(under_way);
}

static void wake_requests_at(void *owner, int64_t at)
{
	struct token_minter *m = owner;

	timer_start(m->timer, at - clock_mono_ms());
}

static void remember(void *owner, struct peer *peer, const struct request *request,
		     struct span access_pattern, struct span token)
{
	struct token_minter *m = owner;

	m->ops->made(m->owner, peer, request, access_pattern, token);
}

static int make_local(void *owner, struct peer *peer, const struct request *request,
		      struct buf *token, char why[ACCESS_PATTERN_WHY_MAX])
{
	struct token_minter *m = owner;

	return m->ops->make_local(m->owner, peer, request, token, why);
}

static const struct token_requests_ops token_requests_ops = {
	.make_local = make_local,
	.made = remember,
	.mint = start_minting,
	.cancel = cancel_minting,
	.wake_at = wake_requests_at,
};

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct token_minter *m = arg;

	(void)fd;
	(void)what;
	token_requests_wake(m->token_requests, clock_mono_ms());
}

struct token_minter *token_minter_new(struct event_base *base,
				      const struct token_minter_settings *settings,
				      struct router *router, struct access *access,
				      const struct token_minter_ops *ops, void *owner,
				      struct stats *stats)
{
	struct token_minter *m = mem_zalloc(sizeof(*m));

	*m = (struct token_minter){
		.base = base,
		.token_requests = token_requests_new(&settings->token_requests, &token_requests_ops,
						     m, router, access, stats),
		.minter = token_client_new(base, &settings->minter),
		.timer = timer_new(base, on_timer, m),
		.api_key = settings->api_key,
		.ops = ops,
		.owner = owner,
	};
	return m;
}

void token_minter_free(struct token_minter *m)
{
	token_client_free(m->minter);
	event_free(m->timer);
	token_requests_free(m->token_requests);
	free(m);
}

struct token_requests *token_minter_requests(struct token_minter *m)
{
	return m->token_requests;
}

void token_minter_set(struct token_minter *m, const struct token_minter_settings *settings)
{
	token_requests_interrupt(m->token_requests);
	token_client_free(m->minter);
	m->minter = token_client_new(m->base, &settings->minter);
	m->api_key = settings->api_key;
	token_requests_set(m->token_requests, &settings->token_requests);
	token_requests_review(m->token_requests, clock_mono_ms());
}
