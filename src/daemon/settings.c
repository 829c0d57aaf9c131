#include "daemon/settings.h"

#include <errno.h>

#include "config/keyfile.h"

enum {
	/* Requests of max_line bytes that may wait to be sent, whatever the limit of their memory:
	 * there has to be room for a valid line. */
	WAITING_LINES = 64,
	PEER_WAITING_LINES = 2,
	PEER_GLOBS_MAX = 1 << 12, /* of a client, patterns that go on behind a *: each costs time */
	TOKENS_AT_ONCE = 4,       /* minted for clients */
	TOKENS_EVERY_MS = 50,     /* between two of them, at least */
	TOKEN_ASK_BYTES = 16 << 10, /* memory of a token request, when as many wait as may */
	PEER_TOKEN_SHARE = 16,      /* a client's part of max_token_requests */
	TOKEN_LATE_MS = 1000, /* after request_timeout, when the client has its error already */
	CACHE_READS = 16,     /* of changed keys of mirrors, at once */
	READS_SHARE = 4,      /* the part of max_in_flight for reads of the daemon's own */
	READ_HELD_SHARE = 8,  /* the part of max_held for changes held back during each of them */
};

struct cache_settings settings_cache(const struct config *c)
{
	return (struct cache_settings){
		.keys = (const char *const *)c->cache.keys.word,
		.n_keys = c->cache.keys.n,
		.mirrors = (const char *const *)c->cache.mirrors.word,
		.n_mirrors = c->cache.mirrors.n,
		.memory = c->cache.memory,
		.max_age_ms = c->cache.max_age_ms,
		.max_stale_ms = c->cache.max_stale_ms,
		.trust = c->cache.trust,
		.request_timeout_ms = c->upstream.request_timeout_ms,
		.reads_at_once = CACHE_READS < c->upstream.max_in_flight
					 ? CACHE_READS
					 : c->upstream.max_in_flight,
	};
}

void settings_http(const struct config *c, struct http_settings *http)
{
	http->max_line = c->listen.max_line;
	http->max_pipeline = c->listen.max_pipeline;
	http->origins = c->listen.http_origins;
	http->nexus = c->upstream.nexus_url.host && c->upstream.api_key;
}

struct client_settings settings_clients(const struct config *c, const struct http_settings *http)
{
	return (struct client_settings){
		.max_clients = c->listen.max_clients,
		.max_line = c->listen.max_line,
		.output_soft = c->listen.output_soft,
		.output_hard = c->listen.output_hard,
		.http = http,
		.http_on_socket = c->listen.http,
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

struct metrics_page_settings settings_metrics(const struct config *c)
{
	return (struct metrics_page_settings){
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
		.max_frame = c->upstream.max_frame,
		.max_pipeline = c->listen.max_pipeline,
		.request_timeout_ms = c->upstream.request_timeout_ms,
		.combine = c->upstream.combine,
		.rate_limit = c->upstream.rate_limit,
		.max_waiting_bytes =
			at_least(WAITING_LINES * c->listen.max_line, c->listen.max_queued),
		.max_peer_waiting_bytes = at_least(PEER_WAITING_LINES * c->listen.max_line,
						   c->listen.max_client_queued),
	};
}

struct subscriptions_settings settings_subscriptions(const struct config *c)
{
	return (struct subscriptions_settings){
		.output_soft = c->listen.output_soft,
		.reads_at_once = 1 + (c->upstream.max_in_flight - 1) / READS_SHARE,
		.held_bytes = c->upstream.max_held / READ_HELD_SHARE,
		.max_subs = c->listen.max_subscriptions,
		.max_peer_subs = c->listen.max_client_subscriptions,
		.max_peer_globs = PEER_GLOBS_MAX,
		.max_topics = c->listen.max_topics,
		.max_bytes = c->listen.subscription_memory,
	};
}

static int read_headers(const char *file, char **lines, const char **why)
{
	int error = keyfile_read(file, keyfile_headers_fault, lines, why);

	if (error == -ENOENT)
		*why = "does not exist";
	return error;
}

/* Where tokens are asked for: of the service, or of the endpoint that has its key. */
static struct token_client_settings token_client_settings(const struct config *c,
							  int64_t timeout_ms)
{
	bool elsewhere = c->upstream.token.url.text;
	const struct url *url = elsewhere ? &c->upstream.token.url : &c->upstream.url;
	const struct proxy *proxy = elsewhere ? &c->upstream.token.proxy : &c->upstream.proxy;

	return (struct token_client_settings){
		.host = url->host,
		.port = url->port,
		.tls = url->tls,
		.path = c->upstream.token.path,
		.trust = c->upstream.trust,
		.proxy_host = proxy->host,
		.proxy_port = proxy->port,
		.proxy_login = c->upstream.proxy_login,
		.timeout_ms = (int)timeout_ms,
		.read_headers = c->upstream.token.header_file ? read_headers : NULL,
		.headers_file = c->upstream.token.header_file,
	};
}

struct token_minter_settings settings_token_minter(const struct config *c)
{
	return (struct token_minter_settings){
		.minter = token_client_settings(c, c->upstream.request_timeout_ms + TOKEN_LATE_MS),
		.api_key = c->upstream.api_key,
		.token_requests = {.at_once = TOKENS_AT_ONCE,
				   .every_ms = TOKENS_EVERY_MS,
				   .max_asks = c->listen.max_token_requests,
				   .max_peer_asks = 1 + (c->listen.max_token_requests - 1) /
								PEER_TOKEN_SHARE,
				   .max_bytes =
					   (size_t)TOKEN_ASK_BYTES * c->listen.max_token_requests,
				   .by_endpoint = c->upstream.token.url.text != NULL},
	};
}

struct nexus_settings settings_nexus(const struct config *c)
{
	return (struct nexus_settings){
		.client = {.host = c->upstream.nexus_url.host,
			   .port = c->upstream.nexus_url.port,
			   .tls = c->upstream.nexus_url.tls,
			   .trust = c->upstream.trust,
			   .proxy_host = c->upstream.nexus_proxy.host,
			   .proxy_port = c->upstream.nexus_proxy.port,
			   .proxy_login = c->upstream.proxy_login,
			   .timeout_ms = REQUEST_TIMEOUT_MAX_MS + TOKEN_LATE_MS},
		.path_prefix = c->upstream.nexus_url.path_prefix,
		.api_key = c->upstream.api_key,
	};
}

struct upstream_settings settings_upstream(const struct config *c, uint64_t seed)
{
	return (struct upstream_settings){
		.endpoint = {.shown = c->upstream.url.text,
			     .conn = {.host = c->upstream.url.host,
				      .port = c->upstream.url.port,
				      .tls = c->upstream.url.tls,
				      .proxy_host = c->upstream.proxy.host,
				      .proxy_port = c->upstream.proxy.port,
				      .proxy_login = c->upstream.proxy_login,
				      .connect_timeout_ms = (int)c->upstream.connect_timeout_ms,
				      .keepalive_ms = c->upstream.keepalive_ms,
				      .max_message = c->upstream.max_message},
			     .trust = c->upstream.trust,
			     .ca_digest = c->upstream.ca_digest},
		.attempts = {.path_prefix = c->upstream.url.path_prefix,
			     .tokens = token_client_settings(c, c->upstream.connect_timeout_ms),
			     .api_key = c->upstream.api_key,
			     .key_source = c->upstream.api_key ? c->upstream.api_key_source
							       : c->upstream.token.url.text,
			     .backoff_min_ms = c->upstream.backoff_min_ms,
			     .backoff_max_ms = c->upstream.backoff_max_ms,
			     .subscribe_fields = c->upstream.subscribe_fields,
			     .access_pattern = c->upstream.access_pattern,
			     .token_lifetime_ms = c->upstream.token_lifetime_ms,
			     .subscribe_batch_ms = c->upstream.subscribe_batch_ms},
		.compared_bytes = c->upstream.max_held,
		.seed = seed,
	};
}
