/* A request first gets a connected socket, and passes it to libcurl. If the TLS handshake fails
 * there, it gets the socket of another address and libcurl starts anew. Through a proxy libcurl
 * holds that dialogue as well, on the same socket: version 7.88 calls connect() on each socket that
 * it is given, which works only once. Owners are called only when libcurl is not on the stack. */
#include "transport/token_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <openssl/ssl.h>

#include "base/buf.h"
#include "base/clock.h"
#include "transport/dial.h"
#include "base/log.h"
#include "base/mem.h"
#include "transport/curl_loop.h"
#include "base/secret.h"
#include "base/timer.h"
#include "transport/token_answer.h"
#include "transport/trust.h"
#include "transport/tunnel.h"

enum { ANSWER_MAX = 256 * 1024, HEADERS_MAX = 64 * 1024, RETRY_AFTER_MAX = 86400 };

struct token_client {
	struct event_base *base;
	struct curl_loop *curl_loop; /* only while there are requests */
	LIST_HEAD(, token_client_request) requests;
	struct trust *trust;
	char *host, *proxy_host, *url, *proxy_login; /* the last one: secret */
	int (*read_headers)(const char *file, char **lines, const char **why);
	char *headers_file;
	struct dial_memory memory;
	uint16_t port, proxy_port;
	bool tls;
	int timeout_ms;
	unsigned inside; /* depth of calls that end in drive() or finish() */
	bool freed;      /* by its owner, while inside */
};

struct token_client_request {
	LIST_ENTRY(token_client_request) entry; /* token_client::requests */
	struct token_client *client;
	token_client_done *done;
	void *owner;
	int64_t deadline;

	struct event *refusal; /* reports in the next turn that the request can't be made */
	const char *refusal_why;
	struct dial *dial;       /* whose socket it is */
	int fd;                  /* connected; -1: libcurl has it, or there is none */
	CURL *easy;              /* while libcurl works on it */
	struct tunnel_talk talk; /* with the proxy, if there is one */
	struct curl_slist *headers, *address;
	char *body;
	bool other; /* it is no request for a token */
	struct buf answer;
	size_t header_bytes;
	char error[CURL_ERROR_SIZE];
};

static void enter(struct token_client *c)
{
	c->inside++;
}

static void drop_easy(struct token_client_request *r)
{
	if (r->easy) {
		curl_loop_remove(r->client->curl_loop, r->easy);
		curl_easy_cleanup(r->easy);
	}
	r->easy = NULL;
	tunnel_forget(&r->talk);
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
}

/* They hold secrets, and libcurl knows of curl_loop's ways with memory only once there is one. */
static void drop_headers(struct token_client_request *r)
{
	for (struct curl_slist *line = r->headers; line; line = line->next)
		mem_wipe(line->data, strlen(line->data));
	curl_slist_free_all(r->headers);
}

static void destroy_request(struct token_client_request *r)
{
	LIST_REMOVE(r, entry);
	drop_easy(r);
	if (r->dial)
		dial_free(r->dial);
	event_free(r->refusal);
	drop_headers(r);
	curl_slist_free_all(r->address);
	free(r->body);
	buf_wipe(&r->answer);
	free(r);
}

static void destroy_client(struct token_client *c)
{
	struct token_client_request *r;

	while ((r = LIST_FIRST(&c->requests)))
		destroy_request(r);
	if (c->curl_loop)
		curl_loop_free(c->curl_loop);
	trust_unref(c->trust);
	free(c->host);
	free(c->proxy_host);
	secret_free(&c->proxy_login);
	free(c->url);
	free(c->headers_file);
	free(c);
}

/* Newer versions of libcurl read answers into a buffer that they keep for the next one: a token
 * would stay there for hours. So memory that they free is overwritten. */
static void drop_buffers(struct token_client *c)
{
	if (!c->curl_loop || !LIST_EMPTY(&c->requests))
		return;
	curl_loop_free(c->curl_loop);
	c->curl_loop = NULL;
}

static void leave(struct token_client *c)
{
	if (--c->inside > 0)
		return;
	if (c->freed)
		destroy_client(c);
	else
		drop_buffers(c);
}

/* Tells the owner, then ends the request: the answer points into it. The owner may cancel others
 * from within, or free the token client. */
static void finish(struct token_client_request *r, const struct token_client_answer *answer)
{
	struct token_client *c = r->client;
	token_client_done *done = r->done;

	enter(c);
	r->done = NULL;
	if (!c->freed)
		done(r->owner, answer);
	destroy_request(r);
	leave(c);
}

static bool was_sent(const struct token_client_request *r);

static void fail(struct token_client_request *r, const char *why)
{
	char phrase[DIAL_WHY_MAX + 64];

	snprintf(phrase, sizeof(phrase), "the %srequest failed: %s", r->other ? "" : "token ", why);
	finish(r, &(struct token_client_answer){
			  .retry_after_s = -1, .why = phrase, .sent = r->easy && was_sent(r)});
}

/* --- the answer --- */

static int retry_after(CURL *easy)
{
	curl_off_t seconds = 0;

	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
	if (seconds <= 0)
		return -1;
	return seconds > RETRY_AFTER_MAX ? RETRY_AFTER_MAX : (int)seconds;
}

static void finish_answered(struct token_client_request *r, int status)
{
	struct token_client_answer answer = {.http_status = status,
					     .retry_after_s = retry_after(r->easy)};
	struct token_client *c = r->client;
	char phrase[80], *token = NULL;

	if (r->other) {
		answer.body = buf_span(&r->answer);
		answer.sent = true;
	} else if (status / 100 == 2) {
		token = token_answer_read(buf_span(&r->answer), &answer.expires_in_s);
		answer.token = token;
		if (!token)
			answer.why = "the answer to the token request contains no usable token";
	} else {
		snprintf(phrase, sizeof(phrase),
			 "the token request was answered with HTTP status %d", status);
		answer.why = phrase;
	}
	if (token || r->other)
		dial_good(r->dial);
	else
		dial_bad(r->dial);
	/* The token is overwritten after the owner has seen it. */
	enter(c);
	finish(r, &answer);
	secret_free(&token);
	leave(c);
}

/* Was the request sent, if only in part? Else another address may be tried. */
static bool was_sent(const struct token_client_request *r)
{
	curl_off_t handshake = 0;
	long bytes = 0;

	if (r->client->proxy_host && !r->talk.over)
		return false; /* the bytes were the proxy's */
	curl_easy_getinfo(r->easy, CURLINFO_REQUEST_SIZE, &bytes);
	curl_easy_getinfo(r->easy, CURLINFO_APPCONNECT_TIME_T, &handshake);
	return r->client->tls ? handshake > 0 : bytes > 0;
}

static void phrase_of(const struct token_client_request *r, CURLcode result, char *phrase,
		      size_t size)
{
	long verdict = X509_V_ERR_UNSPECIFIED;

	curl_easy_getinfo(r->easy, CURLINFO_SSL_VERIFYRESULT, &verdict);
	if (r->client->proxy_host && !r->talk.over) {
		tunnel_phrase(&r->talk, result, r->error, phrase, size);
	} else if (result == CURLE_PEER_FAILED_VERIFICATION) {
		/* libcurl compares the host name, without giving a reason; OpenSSL judges the rest.
		 */
		if (verdict == X509_V_OK || verdict == X509_V_ERR_UNSPECIFIED)
			verdict = X509_V_ERR_HOSTNAME_MISMATCH;
		snprintf(phrase, size, "the server's certificate is refused: %s",
			 X509_verify_cert_error_string(verdict));
	} else if (result == CURLE_OPERATION_TIMEDOUT) {
		snprintf(phrase, size, "timed out %s",
			 was_sent(r) ? "waiting for the answer" : "in the TLS handshake");
	} else if (result == CURLE_WRITE_ERROR) {
		snprintf(phrase, size, "the answer is too long");
	} else {
		snprintf(phrase, size, "%s", *r->error ? r->error : curl_easy_strerror(result));
	}
}

/* Before the request was sent the next address may be tried; a proxy that answers speaks for all of
 * its own. */
static void finish_failed(struct token_client_request *r, CURLcode result)
{
	char phrase[CURL_ERROR_SIZE + 64];
	bool sent = was_sent(r), refused = r->talk.status && !r->talk.over;

	phrase_of(r, result, phrase, sizeof(phrase));
	if (sent) {
		dial_bad(r->dial);
		fail(r, phrase);
		return;
	}
	drop_easy(r);
	if (refused)
		dial_give_up(r->dial, phrase);
	else
		dial_next(r->dial, phrase);
}

static void on_done(void *owner, CURL *easy, CURLcode result)
{
	struct token_client *c = owner;
	struct token_client_request *r = NULL;
	long status = 0;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&r);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	enter(c);
	if (result == CURLE_OK)
		finish_answered(r, (int)status);
	else
		finish_failed(r, result);
	leave(c);
}

/* --- the request --- */

static size_t on_bytes(char *p, size_t one, size_t n, void *user)
{
	struct token_client_request *r = user;

	(void)one;
	if (buf_len(&r->answer) + n > ANSWER_MAX)
		return 0; /* libcurl ends the request */
	buf_add(&r->answer, p, n);
	return n;
}

/* We keep no headers, but libcurl does. The first ones are the proxy's. */
static size_t on_header(char *p, size_t one, size_t n, void *user)
{
	struct token_client_request *r = user;

	(void)one;
	if (r->client->proxy_host && !r->talk.over)
		return tunnel_read(&r->talk, p, n);
	r->header_bytes += n;
	return r->header_bytes > HEADERS_MAX ? 0 : n;
}

/* The trust store of the WebSocket, not libcurl's: both trust the same authorities. */
static CURLcode on_tls_context(CURL *easy, void *tls, void *user)
{
	struct token_client *c = user;
	const char *why;

	(void)easy;
	trust_use(tls, trust_store(c->trust, &why)); /* objection() has asked */
#ifdef SSL_OP_CLEANSE_PLAINTEXT
	SSL_CTX_set_options(tls, SSL_OP_CLEANSE_PLAINTEXT); /* it contains a token */
#endif
	return CURLE_OK;
}

static void add_header(struct token_client_request *r, const char *name, const char *value)
{
	struct buf line = {0};

	buf_addf(&line, "%s: %s", name, value);
	buf_add(&line, "", 1);
	struct curl_slist *list = curl_slist_append(r->headers, buf_span(&line).p);
	if (list)
		r->headers = list;
	buf_wipe(&line);
}

static void add_text(cJSON *object, const char *name, struct span text)
{
	char *copy;

	if (!text.n)
		return;
	copy = mem_strndup(text.p, text.n);
	cJSON_AddRawToObject(object, name, copy);
	free(copy);
}

static char *make_body(const struct token_client_params *wish)
{
	cJSON *object = cJSON_CreateObject();

	add_text(object, "subscribeKeys", wish->subscribe_keys);
	add_text(object, "subscribePatterns", wish->subscribe_patterns);
	add_text(object, "accessPattern", wish->access_pattern);
	char *text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}

/* "host:port:address": an address that libcurl does not use, as the socket is connected; without
 * one it would resolve the name. It does not ask for an IPv6 address. */
static struct curl_slist *some_address(const struct token_client *c)
{
	struct buf line = {0};

	if (strchr(c->host, ':'))
		return NULL;
	buf_addf(&line, "%s:%u:127.0.0.1", c->host, c->port);
	buf_add(&line, "", 1);
	struct curl_slist *list = curl_slist_append(NULL, buf_span(&line).p);
	buf_release(&line);
	return list;
}

static void set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L); /* libcurl keeps nothing of its own */
#endif
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
}

static void set_trust(CURL *easy, struct token_client *c)
{
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls_context);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, c);
}

/* There is one socket: a second attempt of libcurl gets none. */
static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct token_client_request *r = user;
	int fd = r->fd;

	(void)purpose, (void)address;
	r->fd = -1;
	return fd >= 0 ? fd : CURL_SOCKET_BAD;
}

static int on_opened(void *user, curl_socket_t fd, curlsocktype purpose)
{
	(void)user, (void)fd, (void)purpose;
	return CURL_SOCKOPT_ALREADY_CONNECTED;
}

/* Never a proxy of the environment. */
static void set_way(CURL *easy, struct token_client_request *r)
{
	curl_easy_setopt(easy, CURLOPT_RESOLVE, r->address);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, r);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_opened);
	if (r->client->proxy_host)
		tunnel_prepare(&r->talk, easy, r->client->proxy_login);
	else
		curl_easy_setopt(easy, CURLOPT_PROXY, "");
}

/* left_ms: of the address; after the handshake the request has all of its time. */
static void set_request(CURL *easy, struct token_client_request *r, int left_ms)
{
	int64_t left = r->deadline - clock_mono_ms();

	curl_easy_setopt(easy, CURLOPT_URL, r->client->url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, left > 0 ? (long)left : 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)left_ms);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->error);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, r->headers);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(r->body));
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r->body);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L); /* the next one is hours away */
}

static void on_connected(void *owner, int fd, int left_ms)
{
	struct token_client_request *r = owner;
	struct token_client *c = r->client;

	r->fd = fd;
	*r->error = '\0';
	if (!c->curl_loop)
		c->curl_loop = curl_loop_new(c->base, on_done, c);
	r->easy = c->curl_loop ? curl_easy_init() : NULL;
	if (!r->easy) {
		fail(r, "no memory");
		return;
	}
	set_protocols(r->easy);
	set_trust(r->easy, c);
	set_way(r->easy, r);
	set_request(r->easy, r, left_ms);
	if (curl_loop_add(c->curl_loop, r->easy) < 0)
		fail(r, "libcurl could not begin");
}

static void on_no_address(void *owner, const char *why)
{
	fail(owner, why);
}

static void begin(struct token_client_request *r)
{
	static const struct dial_ops ops = {.connected = on_connected, .failed = on_no_address};
	struct token_client *c = r->client;
	struct dial_target target = {
		.host = c->proxy_host ? c->proxy_host : c->host,
		.port = c->proxy_host ? c->proxy_port : c->port,
		.address_ms = c->timeout_ms,
		.total_ms = c->timeout_ms,
	};

	r->address = some_address(c);
	r->dial = dial_new(c->base, &target, &c->memory, &ops, r);
}

static void on_refusal(evutil_socket_t fd, short what, void *user)
{
	struct token_client_request *r = user;

	(void)fd, (void)what;
	finish(r, &(struct token_client_answer){.retry_after_s = -1, .why = r->refusal_why});
}

/* The header lines of the file. A phrase, if they can't be had. */
static const char *add_headers_of_file(struct token_client_request *r)
{
	const char *why = NULL;
	char *lines = NULL;

	if (!r->client->read_headers)
		return NULL;
	if (r->client->read_headers(r->client->headers_file, &lines, &why) < 0) {
		snprintf(r->error, sizeof(r->error), "the header file %s", why);
		return r->error;
	}
	for (char *line = lines, *rest = NULL; (line = strtok_r(line, "\r\n", &rest));
	     line = NULL) {
		struct curl_slist *list = curl_slist_append(r->headers, line);
		if (list)
			r->headers = list;
	}
	secret_free(&lines);
	return NULL;
}

static const char *objection(const struct token_client *c, const struct token_client_params *wish,
			     const struct token_client_request *r)
{
	const char *why = NULL;

	if (c->tls && !trust_store(c->trust, &why))
		return why;
	if (wish->api_key && (!*wish->api_key || !token_answer_is_plain(wish->api_key)))
		return "the API key contains characters that can't be sent";
	return r->body && r->headers ? NULL : "no memory";
}

struct token_client_request *token_client_mint(struct token_client *c,
					       const struct token_client_params *wish,
					       token_client_done *done, void *owner)
{
	struct token_client_request *r = mem_zalloc(sizeof(*r));

	*r = (struct token_client_request){
		.client = c,
		.done = done,
		.owner = owner,
		.deadline = clock_mono_ms() + c->timeout_ms,
		.refusal = timer_new(c->base, on_refusal, r),
		.body = wish->body.p ? mem_strndup(wish->body.p, wish->body.n) : make_body(wish),
		.other = wish->body.p != NULL,
		.fd = -1,
	};
	LIST_INSERT_HEAD(&c->requests, r, entry);
	buf_room(&r->answer, ANSWER_MAX); /* so that it is never moved, and leaves no copy */
	if (wish->api_key)
		add_header(r, "x-api-key", wish->api_key);
	add_header(r, "Content-Type", "application/json");
	add_header(r, "Accept", "application/json");
	add_header(r, "Expect",
		   ""); /* without value: not sent, although libcurl would for a long body */
	r->refusal_why = add_headers_of_file(r);
	if (!r->refusal_why)
		r->refusal_why = objection(c, wish, r);
	if (r->refusal_why)
		timer_next_turn(r->refusal);
	else
		begin(r);
	return r;
}

void token_client_cancel(struct token_client_request *r)
{
	struct token_client *c = r->client;

	if (!r->done)
		return; /* called from within libcurl; the request ends anyway */
	enter(c);
	destroy_request(r);
	leave(c);
}

/* --- the client --- */

static char *make_url(const char *scheme, const char *host, uint16_t port, const char *path)
{
	bool v6 = strchr(host, ':');
	struct buf text = {0};

	buf_addf(&text, "%s://%s%s%s:%u%s", scheme, v6 ? "[" : "", host, v6 ? "]" : "", port, path);
	char *url = mem_strndup(buf_span(&text).p, buf_len(&text));
	buf_release(&text);
	return url;
}

struct token_client *token_client_new(struct event_base *base,
				      const struct token_client_settings *config)
{
	struct token_client *c = mem_zalloc(sizeof(*c));

	*c = (struct token_client){
		.base = base,
		.trust = trust_ref(config->trust),
		.host = mem_strdup(config->host),
		.proxy_host = config->proxy_host ? mem_strdup(config->proxy_host) : NULL,
		.url = make_url(config->tls ? "https" : "http", config->host, config->port,
				config->path),
		.read_headers = config->read_headers,
		.headers_file = config->headers_file ? mem_strdup(config->headers_file) : NULL,
		.proxy_login = config->proxy_login ? secret_dup(config->proxy_login) : NULL,
		.port = config->port,
		.proxy_port = config->proxy_port,
		.tls = config->tls,
		.timeout_ms = config->timeout_ms,
	};
	LIST_INIT(&c->requests);
	return c;
}

void token_client_set_timeout(struct token_client *c, int timeout_ms)
{
	c->timeout_ms = timeout_ms;
}

void token_client_free(struct token_client *c)
{
	enter(c);
	c->freed = true;
	leave(c);
}
