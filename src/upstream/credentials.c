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
	LIST_MIN = 64,        /* a list that is shorter tells nothing about how tokens grow */
	TOKEN_MIN = 512,      /* no service is taken to refuse such a short one for its length */
	TOKEN_OVERHEAD = 240, /* bytes of a token that are not its list: a guess */
	RENEW_NUMERATOR = 3,  /* a token is renewed after three quarters of its life */
	RENEW_DENOMINATOR = 4,
	LONGER_AFTER_MS = 600000, /* to try tokens again that are a third longer */
	HTTP_UNAUTHORIZED = 401,
	HTTP_FORBIDDEN = 403,
	HTTP_BAD_REQUEST = 400,
	HTTP_TOO_LARGE = 413,
	HTTP_URI_TOO_LONG = 414,
	HTTP_UNPROCESSABLE = 422,
	HTTP_HEADER_TOO_LARGE = 431,
};

struct credentials {
	struct minter *minter;
	struct token_client_request *request; /* or NULL */
	struct event *nothing;                /* tells in the next turn that no token is needed */
	char *key, *prefix;                   /* key: secret */
	struct buf access;                    /* a JSON string */
	unsigned fields;
	int64_t lifetime_ms;
	const struct credentials_ops *ops;
	void *owner;
	struct stats *stats;

	char *path, *new_path; /* secret; or NULL */
	int64_t asked_at;      /* boot clock: a token is no younger than its request */
	int64_t born_at;       /* of the token in path */

	int64_t shortened_at; /* boot clock: when the service last found something too long */
	size_t token_max;     /* bytes of a token in a path, percent-encoded */
	double growth;        /* bytes of a token for each of its list */
	size_t list_max;      /* bytes of a list that the service takes */
	size_t list_n;        /* bytes of the list that was sent last */
};

/* ---- paths ---- */

/* prefix/ws?name=secret, percent-encoded but for what never needs it. */
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
	*to = '\0';
	return path;
}

char *credentials_make_key_path(const struct credentials *t)
{
	return make_path(t->prefix, "apiKey", t->key);
}

const char *credentials_path(struct credentials *t)
{
	if (t->path && clock_boot_ms() >= credentials_expires_at(t))
		secret_free(&t->path);
	return t->path;
}

const char *credentials_new_path(const struct credentials *t)
{
	return t->new_path;
}

void credentials_forget(struct credentials *t)
{
	secret_free(&t->path);
}

void credentials_accept(struct credentials *t)
{
	if (!t->new_path)
		return;
	t->stats->token_renewals += t->path && clock_boot_ms() >= credentials_renew_at(t);
	secret_free(&t->path);
	t->path = t->new_path;
	t->new_path = NULL;
	t->born_at = t->asked_at;
}

void credentials_reject(struct credentials *t)
{
	secret_free(&t->new_path);
}

int64_t credentials_renew_at(const struct credentials *t)
{
	return t->born_at + t->lifetime_ms / RENEW_DENOMINATOR * RENEW_NUMERATOR;
}

int64_t credentials_expires_at(const struct credentials *t)
{
	return t->born_at + t->lifetime_ms;
}

/* ---- how long a list may be ---- */

enum { LIST_MAX = 8 << 20 }; /* bytes, however little a token grows with its list */

/* The guess: the list, once for each name, in base64. */
static double first_growth(unsigned fields)
{
	int times = (fields & TOKEN_CLIENT_SUBSCRIBE_KEYS ? 1 : 0) +
		    (fields & TOKEN_CLIENT_SUBSCRIBE_PATTERNS ? 1 : 0);

	return 4.0 / 3 * times;
}

static size_t token_overhead(const struct credentials *t)
{
	return TOKEN_OVERHEAD + buf_len(&t->access) * 3 / 2;
}

static size_t budget(const struct credentials *t)
{
	double room = (double)t->token_max - (double)token_overhead(t);
	double most = t->growth > 0 ? room / t->growth : (double)LIST_MAX;

	if (most > (double)t->list_max)
		return t->list_max;
	return most > 2 ? (size_t)most : 2;
}

/* A list of so many bytes has made a token of so many. A short one only says that it may be less.
 */
static void learn(struct credentials *t, size_t token_n)
{
	double grown = (double)token_n - (double)token_overhead(t);
	double growth = grown > 0 ? grown / (double)t->list_n * 1.02 : 0;

	if (t->list_n >= LIST_MIN || growth < t->growth)
		t->growth = growth;
}

/* It was too long all the same: the next one is shorter, whatever was learnt, and by so much that
 * there is an end of it soon. */
static void shrink(struct credentials *t, size_t token_n)
{
	double least = (double)token_n / (double)(t->list_n ? t->list_n : 1);

	if (t->growth < least)
		t->growth = least;
	if (budget(t) >= t->list_n - t->list_n / 8)
		t->growth = t->growth * 1.25 + 0.01;
}

bool credentials_was_refused(struct credentials *t, int http_status)
{
	size_t n = t->new_path ? strlen(t->new_path) : 0;
	bool too_long =
		(http_status == HTTP_URI_TOO_LONG || http_status == HTTP_HEADER_TOO_LARGE) &&
		n > TOKEN_MIN;

	credentials_reject(t);
	if (!too_long)
		return false;
	t->token_max = n * 3 / 4 > TOKEN_MIN ? n * 3 / 4 : TOKEN_MIN;
	t->shortened_at = clock_boot_ms();
	return true;
}

/* ---- minting ---- */

static void tell(struct credentials *t, enum credentials_verdict verdict, const char *why,
		 int retry_after_s)
{
	struct credentials_answer answer = {verdict, why, retry_after_s};

	t->ops->answer(t->owner, &answer);
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

static void take_token(struct credentials *t, const char *token)
{
	char *path = make_path(t->prefix, "token", token);
	size_t n = strlen(path);

	t->stats->tokens_minted++;
	learn(t, n);
	if (n > t->token_max || n > TARGET_PATH_MAX) {
		secret_free(&path);
		shrink(t, n);
		tell(t, CREDENTIALS_TOO_LONG, "the service's token is too long for a request line",
		     -1);
		return;
	}
	secret_free(&t->new_path);
	t->new_path = path;
	tell(t, CREDENTIALS_READY, NULL, -1);
}

/* The request was too large for the service: a matter of how much is listed, not of what. */
static bool list_was_too_long(struct credentials *t, int http_status)
{
	if (http_status != HTTP_TOO_LARGE || t->list_n <= LIST_MIN)
		return false;
	t->list_max = t->list_n / 2;
	t->shortened_at = clock_boot_ms();
	return true;
}

static void on_token(void *owner, const struct token_client_answer *answer)
{
	struct credentials *t = owner;

	t->request = NULL;
	if (answer->token) {
		take_token(t, answer->token);
		return;
	}
	t->stats->token_failures++;
	if (list_was_too_long(t, answer->http_status)) {
		tell(t, CREDENTIALS_TOO_LONG, answer->why, -1);
		return;
	}
	tell(t, verdict_of(answer), answer->why, answer->retry_after_s);
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

/* What the service once found too long it may take later. */
static void try_longer(struct credentials *t)
{
	if (clock_boot_ms() - t->shortened_at < LONGER_AFTER_MS)
		return;
	t->shortened_at = clock_boot_ms();
	t->token_max = third_more(t->token_max, TARGET_PATH_MAX);
	t->list_max = third_more(t->list_max, LIST_MAX);
}

void credentials_ask(struct credentials *t)
{
	struct buf list = {0};
	struct token_client_wish wish = {.api_key = t->key};

	try_longer(t);
	if (!t->ops->make_list(t->owner, budget(t), &list)) {
		/* Should it have had no room: what was learnt may be true no longer. */
		t->growth = first_growth(t->fields);
		buf_release(&list);
		timer_next_turn(t->nothing);
		return;
	}
	if (t->fields & TOKEN_CLIENT_SUBSCRIBE_KEYS)
		wish.subscribe_keys = buf_span(&list);
	if (t->fields & TOKEN_CLIENT_SUBSCRIBE_PATTERNS)
		wish.subscribe_patterns = buf_span(&list);
	wish.access_pattern = buf_span(&t->access);
	t->list_n = buf_len(&list);
	t->asked_at = clock_boot_ms();
	t->request = token_client_mint(t->minter, &wish, on_token, t);
	buf_release(&list);
}

void credentials_cancel(struct credentials *t)
{
	event_del(t->nothing);
	if (t->request)
		token_client_cancel(t->request);
	t->request = NULL;
}

/* ---- */

struct credentials *credentials_new(struct event_base *base,
				    const struct credentials_settings *settings,
				    const struct credentials_ops *ops, void *owner,
				    struct stats *stats)
{
	struct credentials *t = mem_zalloc(sizeof(*t));

	*t = (struct credentials){
		.minter = minter_new(base, &settings->minter),
		.nothing = timer_new(base, on_nothing, t),
		.key = secret_share(settings->api_key),
		.prefix = mem_strdup(settings->minter.path_prefix),
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
		json_add_string(&t->access, (struct span){settings->access_pattern,
							  strlen(settings->access_pattern)});
	return t;
}

void credentials_set_times(struct credentials *t, int64_t timeout_ms, int64_t lifetime_ms)
{
	minter_set_timeout(t->minter, (int)timeout_ms);
	t->lifetime_ms = lifetime_ms;
}

void credentials_free(struct credentials *t)
{
	credentials_cancel(t);
	minter_free(t->minter);
	event_free(t->nothing);
	secret_free(&t->path);
	secret_free(&t->new_path);
	secret_free(&t->key);
	free(t->prefix);
	buf_release(&t->access);
	free(t);
}
