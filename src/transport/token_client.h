/* token_client.h - mints HPKV tokens: POST /token/websocket at the service, or the same at an
 * endpoint of the customer's, who has the API key ([upstream] token_url).
 *
 * libcurl makes the request, inside our loop (curl_loop.h), on a socket that is connected already
 * (dial.h) to the service or to a proxy (tunnel.h): it resolves no name and follows no redirect.
 * Certificate and host name are always checked. When the handshake with an address fails, or takes
 * more than its share of the time, the next address is tried; a request that has been sent is not
 * sent again. Key and token are secrets: neither is logged, and no copy of them, our own or
 * libcurl's, is left when their request has ended. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

struct trust;

struct token_client; /* where and how to ask; any number of requests at a time */

struct token_client_settings {
	const char *host;
	uint16_t port;
	bool tls;
	const char *path;       /* "/token/websocket", mostly */
	struct trust *trust;    /* it is referred to */
	const char *proxy_host; /* a name or an address: an HTTP proxy to go through; NULL: none */
	uint16_t proxy_port;
	const char *proxy_login; /* "user:password", secret; or NULL */
	int timeout_ms;          /* of a whole request, name look-up included */
	/* Header lines that each request brings along, read anew for it: "Name: value\n" and so on,
	 * freed by secret_free(). -errno and a phrase when there are none to be had. NULL: none are
	 * wanted. file is handed over, and copied. */
	int (*read_headers)(const char *file, char **lines, const char **why);
	const char *headers_file;
};

/* The member names under which the list is sent. */
enum token_client_fields { TOKEN_CLIENT_SUBSCRIBE_KEYS = 1, TOKEN_CLIENT_SUBSCRIBE_PATTERNS = 2 };

struct token_client_params {
	const char *api_key; /* NULL: none is sent */
	/* JSON as text, two arrays of strings and a string; what is empty is not sent. */
	struct span subscribe_keys, subscribe_patterns, access_pattern;
	/* In their place: a request of another kind with this body, whose answer is not looked at.
	 * p NULL: a token is minted. */
	struct span body;
};

struct token_client_answer {
	const char *token; /* NULL: refused or failed */
	int http_status;   /* 0: no answer came */
	int expires_in_s;  /* 0: it does not say for how long the token is good */
	int retry_after_s; /* -1: none given */
	const char *why;   /* a phrase without secrets, when token is NULL */
	struct span body;  /* of the answer to a request of another kind */
	bool sent;         /* the request, if only in part */
};

/* The request has ended. The answer is valid during the call. */
typedef void token_client_done(void *owner, const struct token_client_answer *answer);

struct token_client *token_client_new(struct event_base *base,
				      const struct token_client_settings *config);
/* For requests from now on. */
void token_client_set_timeout(struct token_client *c, int timeout_ms);
void token_client_free(
	struct token_client *c); /* open requests end without a call; also from within done */

/* Never calls done from within. Once done was called the request is gone; before that,
 * token_client_cancel() ends it without a call. params need not outlive the call. */
struct token_client_request;
struct token_client_request *token_client_mint(struct token_client *c,
					       const struct token_client_params *wish,
					       token_client_done *done, void *owner);
void token_client_cancel(struct token_client_request *r);
