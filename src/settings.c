#include "settings.h"

enum {
	WAITING_BYTES = 64 << 20, /* memory of all requests that wait to be sent: this, or ... */
	WAITING_LINES = 64,       /* ... so many of the longest lines */
	PEER_WAITING_BYTES = 1 << 20, /* of one client's; it is not read further beyond */
	PEER_WAITING_LINES = 2,
	SUBS_MAX = 4 << 20,              /* subscriptions of all clients */
	PEER_SUBS_MAX = 1 << 17,         /* of one */
	PEER_GLOBS_MAX = 1 << 12,        /* ... to patterns that go on behind a * */
	TOPICS_MAX = 1 << 18,            /* different keys and patterns */
	SUBS_BYTES_MAX = 1 << 30,        /* memory of all of them */
	TOKENS_AT_ONCE = 4,              /* that are minted for clients */
	TOKENS_EVERY_MS = 50,            /* ... and no faster than that */
	TOKEN_ASKS_MAX = 1024,           /* requests for them */
	PEER_TOKEN_ASKS_MAX = 64,        /* ... of one client */
	TOKEN_ASKS_BYTES_MAX = 16 << 20, /* ... and the memory of all */
	TOKEN_LATE_MS =
		1000, /* behind request_timeout: a request that is not answered is over by itself */
	READS_SHARE = 4, /* of max_in_flight, the part that reading for subscribers may take */
};

struct client_settings settings_clients(const struct config *c)
{
	return (struct client_settings){
		.max_clients = c->listen.max_clients,
		.max_line = c->listen.max_line,
		.output_soft = c->listen.output_soft,
		.output_hard = c->listen.output_hard,
	};
}

struct listener_settings settings_listener(const struct config *c)
{
	return (struct listener_settings){
		.path = c->listen.socket,
		.mode = c->listen.mode,
		.group = c->listen.group,
	};
}

struct metrics_settings settings_metrics(const struct config *c)
{
	return (struct metrics_settings){
		.path = c->metrics.path,
		.mode = c->listen.mode,
		.group = c->listen.group,
		.address = c->metrics.address,
		.port = c->metrics.port,
	};
}

static size_t at_least(size_t n, size_t least)
{
	return n > least ? n : least;
}

struct router_settings settings_router(const struct config *c)
{
	return (struct router_settings){
		.max_in_flight = c->upstream.max_in_flight,
		.max_pipeline = c->listen.max_pipeline,
		.request_timeout_ms = c->upstream.request_timeout_ms,
		.rate_limit = c->upstream.rate_limit,
		.max_waiting_bytes = at_least(WAITING_LINES * c->listen.max_line, WAITING_BYTES),
		.max_peer_waiting_bytes =
			at_least(PEER_WAITING_LINES * c->listen.max_line, PEER_WAITING_BYTES),
	};
}

struct feed_settings settings_feed(const struct config *c)
{
	return (struct feed_settings){
		.output_soft = c->listen.output_soft,
		.reads_at_once = 1 + (c->upstream.max_in_flight - 1) / READS_SHARE,
		.max_subs = SUBS_MAX,
		.max_peer_subs = PEER_SUBS_MAX,
		.max_peer_globs = PEER_GLOBS_MAX,
		.max_topics = TOPICS_MAX,
		.max_bytes = SUBS_BYTES_MAX,
	};
}

struct mint_settings settings_mint(const struct config *c)
{
	return (struct mint_settings){
		.minter = {.host = c->upstream.url.host,
			   .port = c->upstream.url.port,
			   .tls = c->upstream.url.tls,
			   .path_prefix = c->upstream.url.path_prefix,
			   .ca_file = c->upstream.ca_file,
			   .proxy_host = c->upstream.proxy.host,
			   .proxy_port = c->upstream.proxy.port,
			   .timeout_ms = (int)c->upstream.request_timeout_ms + TOKEN_LATE_MS},
		.api_key = c->upstream.api_key,
		.issuer = {.at_once = TOKENS_AT_ONCE,
			   .every_ms = TOKENS_EVERY_MS,
			   .max_asks = TOKEN_ASKS_MAX,
			   .max_peer_asks = PEER_TOKEN_ASKS_MAX,
			   .max_bytes = TOKEN_ASKS_BYTES_MAX},
	};
}

struct upstream_settings settings_upstream(const struct config *c, uint64_t seed)
{
	return (struct upstream_settings){
		.place = {.shown = c->upstream.url.text,
			  .host = c->upstream.url.host,
			  .port = c->upstream.url.port,
			  .tls = c->upstream.url.tls,
			  .proxy_host = c->upstream.proxy.host,
			  .proxy_port = c->upstream.proxy.port,
			  .ca_file = c->upstream.ca_file,
			  .ca_digest = c->upstream.ca_digest,
			  .connect_timeout_ms = c->upstream.connect_timeout_ms,
			  .keepalive_ms = c->upstream.keepalive_ms},
		.path_prefix = c->upstream.url.path_prefix,
		.api_key = c->upstream.api_key,
		.key_hint = c->upstream.api_key_source,
		.backoff_min_ms = c->upstream.backoff_min_ms,
		.backoff_max_ms = c->upstream.backoff_max_ms,
		.subscribe_fields = c->upstream.subscribe_fields,
		.access_pattern = c->upstream.access_pattern,
		.token_lifetime_ms = c->upstream.token_lifetime_ms,
		.subscribe_batch_ms = c->upstream.subscribe_batch_ms,
		.seed = seed,
	};
}
