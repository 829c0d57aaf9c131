#include "upstream/credentials.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "codec/json.h"
#include "transport/target.h"
#include "base/mem.h"
#include "base/secret.h"
#include "base/timer.h"

enum {
	LIST_MIN = 64,        /* a shorter list shows nothing about how tokens grow */
	TOKEN_MIN = 512,      /* a token this short is never refused for its length */
	TOKEN_OVERHEAD = 240, /* bytes of a token that are not its list: a guess */
	RENEW_NUMERATOR = 3,  /* a token is renewed after three quarters of its life */
	RENEW_DENOMINATOR = 4,
	LONGER_AFTER_MS = 600000, /* to try again tokens that are a third longer */
	HTTP_UNAUTHORIZED = 401,
	HTTP_FORBIDDEN = 403,
	HTTP_BAD_REQUEST = 400,
	HTTP_TOO_LARGE = 413,
	HTTP_URI_TOO_LONG = 414,
	HTTP_UNPROCESSABLE = 422,
	HTTP_TOO_MANY = 429,
	HTTP_HEADER_TOO_LARGE = 431,
};

struct credentials {
	struct token_client *token_client;
	struct token_client_request *request; /* or NULL */
	struct event *nothing;                /* reports in the next turn that no token is needed */
	char *key, *prefix;                   /* key: secret; NULL: there is none */
	struct buf access;                    /* a JSON string */
	unsigned fields;
	int64_t lifetime_ms;
	const struct credentials_ops *ops;
	void *owner;
	struct stats *stats;

	char *path, *new_path;        /* secret; or NULL */
	int64_t asked_at;             /* boot clock: a token is no younger than its request */
	int64_t born_at;              /* of the token in path */
	int64_t life_ms, new_life_ms; /* of the tokens in path and new_path */

	int64_t shortened_at; /* boot clock: when something was last too long for the service */
	size_t token_max;     /* bytes of a path with a token; at most TARGET_PATH_MAX */
	double growth;        /* bytes of a token per byte of its list */
	size_t list_max;      /* bytes of a list that the service accepts */
	size_t list_n;        /* bytes of the list that was sent last, "[]" at least */
};

/* ---- paths ---- */

/* prefix/ws?name=secret; all but unreserved characters percent-encoded. */
static char *make_path(const char *prefix, const char *name, const char *secret)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	static const char digits[] = "0123456789ABCDEF";
	char *path = secret_alloc(strlen(prefix) + strlen(name) + 3 * strlen(secret) + 8),
	     *to = path;

	to += sprintf(to, "%s/ws?%s=", prefix, name);
	for (const char *p = secret; *p; p++) {
		if (strchr(plain, *p)) {
			*to++ = *p;
		} else {
			*to++ = '%';
			*to++ = digits[(unsigned char)*p >> 4];
			*to++ = digits[(unsigned char)*p & 15];
		}
	}
	return path; /* zeroed: its end is there */
}

char *credentials_make_key_path(const struct credentials *c)
{
	return make_path(c->prefix, "apiKey", c->key);
}

const char *credentials_path(struct credentials *c)
{
	if (c->path && clock_boot_ms() >= credentials_expires_at(c))
		secret_free(&c->path);
	return c->path;
}

const char *credentials_new_path(const struct credentials *c)
{
	return c->new_path;
}

void credentials_forget(struct credentials *c)
{
	secret_free(&c->path);
}

void credentials_accept(struct credentials *c)
{
	if (!c->new_path)
		return;
	c->stats->token_renewals += c->path && clock_boot_ms() >= credentials_renew_at(c);
	secret_free(&c->path);
	c->path = c->new_path;
	c->new_path = NULL;
	c->born_at = c->asked_at;
	c->life_ms = c->new_life_ms;
}

void credentials_reject(struct credentials *c)
{
	secret_free(&c->new_path);
}

/* Of the token in force: the setting may have become shorter than what its answer said. */
static int64_t life_ms(const struct credentials *c)
{
	return c->life_ms < c->lifetime_ms ? c->life_ms : c->lifetime_ms;
}

int64_t credentials_renew_at(const struct credentials *c)
{
	return c->born_at + life_ms(c) / RENEW_DENOMINATOR * RENEW_NUMERATOR;
}

int64_t credentials_expires_at(const struct credentials *c)
{
	return c->born_at + life_ms(c);
}

/* ---- how long a list may be ---- */

enum { LIST_MAX = 8 << 20 }; /* bytes, however little a token grows with its list */

/* The guess: the list in base64, once for each name. */
static double first_growth(unsigned fields)
{
	int times = (fields & TOKEN_CLIENT_SUBSCRIBE_KEYS ? 1 : 0) +
		    (fields & TOKEN_CLIENT_SUBSCRIBE_PATTERNS ? 1 : 0);

	return 4.0 / 3 * times;
}

static size_t token_overhead(const struct credentials *c)
{
	return TOKEN_OVERHEAD + buf_len(&c->access) * 3 / 2;
}

static size_t budget(const struct credentials *c)
{
	double room = (double)c->token_max - (double)token_overhead(c);
	double most = c->growth > 0 ? room / c->growth : (double)LIST_MAX;

	if (most > (double)c->list_max)
		return c->list_max;
	return most > 2 ? (size_t)most : 2;
}

/* Learns from a list of list_n bytes and its token; growth of 0 or less: tokens do not grow. A
 * short list shows only that growth may be less. */
static void learn(struct credentials *c, size_t token_n)
{
	double grown = (double)token_n - (double)token_overhead(c);
	double growth = grown / (double)c->list_n * 1.02;

	if (c->list_n >= LIST_MIN || growth < c->growth)
		c->growth = growth;
}

/* The token was too long all the same. The next list must be shorter, whatever was learnt, and so
 * much shorter that few attempts are needed. */
static void shrink(struct credentials *c, size_t token_n)
{
	double least = (double)token_n / (double)c->list_n;

	if (c->growth < least)
		c->growth = least;
	if (budget(c) >= c->list_n - c->list_n / 8)
		c->growth *= 1.25;
}

bool credentials_was_refused(struct credentials *c, int http_status)
{
	size_t n = c->new_path ? strlen(c->new_path) : 0;
	bool too_long =
		(http_status == HTTP_URI_TOO_LONG || http_status == HTTP_HEADER_TOO_LARGE) &&
		n > TOKEN_MIN;

	credentials_reject(c);
	if (!too_long)
		return false;
	c->token_max = n * 3 / 4 > TOKEN_MIN ? n * 3 / 4 : TOKEN_MIN;
	c->shortened_at = clock_boot_ms();
	return true;
}

/* ---- minting ---- */

static void tell(struct credentials *c, enum credentials_verdict verdict, const char *why,
		 int retry_after_s)
{
	struct credentials_answer answer = {verdict, why, retry_after_s, false};

	c->ops->answer(c->owner, &answer);
}

static enum credentials_verdict verdict_of(const struct token_client_answer *answer)
{
	int status = answer->http_status;

	if (status == HTTP_UNAUTHORIZED || status == HTTP_FORBIDDEN)
		return CREDENTIALS_UNAUTHORIZED;
	if (status == HTTP_BAD_REQUEST || status == HTTP_TOO_LARGE || status == HTTP_UNPROCESSABLE)
		return CREDENTIALS_REFUSED;
	return CREDENTIALS_FAILED;
}

static void take_token(struct credentials *c, const char *token)
{
	char *path = make_path(c->prefix, "token", token);
	size_t n = strlen(path);

	c->stats->tokens_minted++;
	learn(c, n);
	if (n > c->token_max) {
		secret_free(&path);
		shrink(c, n);
		tell(c, CREDENTIALS_TOO_LONG, "the service's token is too long for a request line",
		     -1);
		return;
	}
	secret_free(&c->new_path);
	c->new_path = path;
	tell(c, CREDENTIALS_READY, NULL, -1);
}

/* The request was too large for the service: the length of the list matters, not its names. */
static bool list_was_too_long(struct credentials *c, int http_status)
{
	if (http_status != HTTP_TOO_LARGE || c->list_n <= LIST_MIN)
		return false;
	c->list_max = c->list_n / 2;
	c->shortened_at = clock_boot_ms();
	return true;
}

static void on_token(void *owner, const struct token_client_answer *answer)
{
	struct credentials *c = owner;

	c->request = NULL;
	if (answer->token) {
		c->new_life_ms =
			answer->expires_in_s ? INT64_C(1000) * answer->expires_in_s : INT64_MAX;
		take_token(c, answer->token);
		return;
	}
	c->stats->token_failures++;
	if (list_was_too_long(c, answer->http_status)) {
		tell(c, CREDENTIALS_TOO_LONG, answer->why, -1);
		return;
	}
	struct credentials_answer failure = {verdict_of(answer), answer->why, answer->retry_after_s,
					     answer->http_status == HTTP_TOO_MANY};
	c->ops->answer(c->owner, &failure);
}

static void on_nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	tell(arg, CREDENTIALS_NONE, NULL, -1);
}

static size_t third_more(size_t n, size_t most)
{
	return n < most / 4 * 3 ? n / 3 * 4 : most;
}

/* The service may accept later what was once too long. */
static void try_longer(struct credentials *c)
{
	if (clock_boot_ms() - c->shortened_at < LONGER_AFTER_MS)
		return;
	c->shortened_at = clock_boot_ms();
	c->token_max = third_more(c->token_max, TARGET_PATH_MAX);
	c->list_max = third_more(c->list_max, LIST_MAX);
}

void credentials_ask(struct credentials *c)
{
	struct buf list = {0};
	struct token_client_params params = {.api_key = c->key};

	try_longer(c);
	if (!c->ops->make_list(c->owner, budget(c), &list) && c->key) {
		/* If the list had no room: what was learnt may not hold any more. */
		c->growth = first_growth(c->fields);
		buf_release(&list);
		timer_next_turn(c->nothing);
		return;
	}
	if (c->fields & TOKEN_CLIENT_SUBSCRIBE_KEYS)
		params.subscribe_keys = buf_span(&list);
	if (c->fields & TOKEN_CLIENT_SUBSCRIBE_PATTERNS)
		params.subscribe_patterns = buf_span(&list);
	params.access_pattern = buf_span(&c->access);
	c->list_n = buf_len(&list);
	c->asked_at = clock_boot_ms();
	c->request = token_client_mint(c->token_client, &params, on_token, c);
	buf_release(&list);
}

bool credentials_is_asking(const struct credentials *c)
{
	return c->request || event_pending(c->nothing, EV_TIMEOUT, NULL);
}

void credentials_cancel(struct credentials *c)
{
	event_del(c->nothing);
	if (c->request)
		token_client_cancel(c->request);
	c->request = NULL;
}

/* ---- the whole ---- */

struct credentials *credentials_new(struct event_base *base,
				    const struct credentials_settings *settings,
				    const struct credentials_ops *ops, void *owner,
				    struct stats *stats)
{
	struct credentials *c = mem_zalloc(sizeof(*c));

	*c = (struct credentials){
		.token_client = token_client_new(base, &settings->token_client),
		.nothing = timer_new(base, on_nothing, c),
		.key = settings->api_key ? secret_share(settings->api_key) : NULL,
		.prefix = mem_strdup(settings->path_prefix),
		.fields = settings->fields,
		.lifetime_ms = settings->lifetime_ms,
		.ops = ops,
		.owner = owner,
		.stats = stats,
		.token_max = TARGET_PATH_MAX,
		.growth = first_growth(settings->fields),
		.list_max = LIST_MAX,
	};
	if (*settings->access_pattern)
		json_add_string(&c->access, (struct span){settings->access_pattern,
							  strlen(settings->access_pattern)});
	return c;
}

void credentials_set_times(struct credentials *c, int64_t timeout_ms, int64_t lifetime_ms)
{
	token_client_set_timeout(c->token_client, (int)timeout_ms);
	c->lifetime_ms = lifetime_ms;
}

void credentials_free(struct credentials *c)
{
	credentials_cancel(c);
	token_client_free(c->token_client);
	event_free(c->nothing);
	secret_free(&c->path);
	secret_free(&c->new_path);
	secret_free(&c->key);
	free(c->prefix);
	buf_release(&c->access);
	free(c);
}
