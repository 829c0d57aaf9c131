/* libcurl asks for two things to live in another's loop: to be told when a descriptor is ready (it
 * names them in on_watch()) and when a time has come (on_timeout_wish()). Both end in drive(),
 * where finished requests are collected. libcurl is never entered from its own callbacks, and
 * owners are called only when it is not on the stack.
 *
 * A request first asks the resolver room for addresses and hands them to libcurl, which else would
 * start a thread for that. */
#include "token.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <openssl/ssl.h>

#include "buf.h"
#include "clock.h"
#include "json.h"
#include "log.h"
#include "mem.h"
#include "resolver.h"
#include "secret.h"
#include "timer.h"
#include "trust.h"

enum { ANSWER_MAX = 256 * 1024, HEADERS_MAX = 64 * 1024, RETRY_AFTER_MAX = 86400 };

struct minter {
	struct event_base *base;
	CURLM *multi;        /* only while there are requests */
	struct event *timer; /* libcurl's */
	LIST_HEAD(, token_request) requests;
	X509_STORE *trust;
	const char *trust_fault; /* why ca_file can't be used; NULL: it can */
	char *host, *proxy_host, *url;
	char *proxy; /* its URL; NULL: none */
	uint16_t port, proxy_port;
	bool tls;
	int timeout_ms;
	unsigned inside; /* how deep we are in calls that end in drive() or finish() */
	bool freed;      /* by its owner, while inside */
};

struct token_request {
	LIST_ENTRY(token_request) entry; /* minter::requests */
	struct minter *minter;
	token_done *done;
	void *owner;
	int64_t deadline;

	struct event *refusal; /* tells in the next turn that the request can't be made */
	const char *refusal_why;
	struct resolver *question; /* while the name is asked for */
	CURL *easy;                /* while libcurl works on it */
	struct curl_slist *headers, *addresses;
	char *body;
	struct buf answer;
	size_t header_bytes;
	char error[CURL_ERROR_SIZE];
};

static void enter(struct minter *m)
{
	m->inside++;
}

static void destroy_request(struct token_request *r)
{
	LIST_REMOVE(r, entry);
	if (r->question)
		resolver_cancel(r->question);
	if (r->easy) {
		curl_multi_remove_handle(r->minter->multi, r->easy);
		curl_easy_cleanup(r->easy);
	}
	event_free(r->refusal);
	curl_slist_free_all(r->headers);
	curl_slist_free_all(r->addresses);
	free(r->body);
	if (r->answer.p)
		mem_wipe(r->answer.p, r->answer.size);
	buf_release(&r->answer);
	free(r);
}

static void destroy_minter(struct minter *m)
{
	struct token_request *r;

	while ((r = LIST_FIRST(&m->requests)))
		destroy_request(r);
	if (m->multi)
		curl_multi_cleanup(m->multi);
	event_free(m->timer);
	X509_STORE_free(m->trust);
	free(m->host);
	free(m->proxy_host);
	free(m->proxy);
	free(m->url);
	free(m);
	curl_global_cleanup();
}

/* Newer versions of libcurl read answers into a buffer that they keep for the next one: a token
 * would stay there for hours. What they free is wiped. */
static void drop_buffers(struct minter *m)
{
	if (!m->multi || !LIST_EMPTY(&m->requests))
		return;
	curl_multi_cleanup(m->multi);
	m->multi = NULL;
	event_del(m->timer);
}

static void leave(struct minter *m)
{
	if (--m->inside > 0)
		return;
	if (m->freed)
		destroy_minter(m);
	else
		drop_buffers(m);
}

/* Tells the owner and ends the request, in this order: the answer points into it. The owner may
 * cancel others from within, or free the minter. */
static void finish(struct token_request *r, const struct token_answer *answer)
{
	struct minter *m = r->minter;
	token_done *done = r->done;

	enter(m);
	r->done = NULL;
	if (!m->freed)
		done(r->owner, answer);
	destroy_request(r);
	leave(m);
}

static void fail(struct token_request *r, const char *why)
{
	finish(r, &(struct token_answer){.retry_after_s = -1, .why = why});
}

/* --- the answer --- */

/* The token goes into a request line: nothing that could end it, or the line. */
static bool printable(const char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f)
			return false;
	}
	return true;
}

static int retry_after(CURL *easy)
{
	curl_off_t seconds = 0;

	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
	if (seconds <= 0)
		return -1;
	return seconds > RETRY_AFTER_MAX ? RETRY_AFTER_MAX : (int)seconds;
}

/* The token, freed by secret_free(); NULL: there is none that can be used. A
 * NUL in it would end it before its end. */
static char *find_token(struct span text)
{
	struct json_object_reader reader;
	struct json_member m;
	char *token = NULL;

	json_object_begin(&reader, text);
	while (!token && json_object_next(&reader, &m) > 0) {
		if (m.value.type != JSON_STRING || !json_string_is(&m.name, SPAN("token")))
			continue;
		token = secret_alloc(
			m.value.text.n); /* its quotes are room for more than the NUL */
		size_t n = json_string_decode(&m.value, token);
		if (n && strlen(token) == n && printable(token))
			break;
		secret_free(&token);
		return NULL;
	}
	return token;
}

static void finish_answered(struct token_request *r, int status)
{
	struct token_answer answer = {.http_status = status, .retry_after_s = retry_after(r->easy)};
	struct minter *m = r->minter;
	char phrase[80], *token = NULL;

	if (status / 100 == 2) {
		token = find_token(buf_span(&r->answer));
		answer.token = token;
		if (!token)
			answer.why = "the answer to the token request has no usable token in it";
	} else {
		snprintf(phrase, sizeof(phrase),
			 "the token request was answered with HTTP status %d", status);
		answer.why = phrase;
	}
	/* The token is wiped after the owner has seen it, whatever the owner does. */
	enter(m);
	finish(r, &answer);
	secret_free(&token);
	leave(m);
}

static void finish_failed(struct token_request *r, CURLcode result)
{
	char phrase[CURL_ERROR_SIZE + 64];
	long verdict = X509_V_ERR_UNSPECIFIED, os_errno = 0;

	curl_easy_getinfo(r->easy, CURLINFO_SSL_VERIFYRESULT, &verdict);
	curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &os_errno);
	if (result == CURLE_PEER_FAILED_VERIFICATION) {
		/* The host name is compared by libcurl, without a verdict; the rest is judged by
		 * OpenSSL. */
		if (verdict == X509_V_OK || verdict == X509_V_ERR_UNSPECIFIED)
			verdict = X509_V_ERR_HOSTNAME_MISMATCH;
		snprintf(phrase, sizeof(phrase), "the server's certificate is refused: %s",
			 X509_verify_cert_error_string(verdict));
	} else if (result == CURLE_OPERATION_TIMEDOUT) {
		snprintf(phrase, sizeof(phrase), "the token request timed out");
	} else if (result == CURLE_WRITE_ERROR) {
		snprintf(phrase, sizeof(phrase), "the answer to the token request is too long");
	} else if (result == CURLE_COULDNT_CONNECT && os_errno) {
		snprintf(phrase, sizeof(phrase), "the token request failed: %s",
			 strerror((int)os_errno));
	} else {
		snprintf(phrase, sizeof(phrase), "the token request failed: %s",
			 *r->error ? r->error : curl_easy_strerror(result));
	}
	fail(r, phrase);
}

/* --- libcurl in the loop --- */

static void collect(struct minter *m)
{
	CURLMsg *message;
	int left;

	while (!m->freed && (message = curl_multi_info_read(m->multi, &left))) {
		struct token_request *r = NULL;
		CURLcode result = message->data.result;
		long status = 0;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&r);
		curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
		if (result == CURLE_OK)
			finish_answered(r, (int)status);
		else
			finish_failed(r, result);
	}
}

static void drive(struct minter *m, curl_socket_t fd, int what)
{
	int running;

	if (!m->multi)
		return;
	enter(m);
	curl_multi_socket_action(m->multi, fd, what, &running);
	collect(m);
	leave(m);
}

static void on_ready(evutil_socket_t fd, short what, void *user)
{
	drive(user, fd,
	      ((what & EV_READ) ? CURL_CSELECT_IN : 0) |
		      ((what & EV_WRITE) ? CURL_CSELECT_OUT : 0));
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
	(void)fd, (void)what;
	drive(user, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout_wish(CURLM *multi, long ms, void *user)
{
	struct minter *m = user;

	(void)multi;
	if (ms < 0)
		event_del(m->timer);
	else
		timer_start(m->timer, ms);
	return 0;
}

/* The event of a descriptor is what libcurl remembers for us beside it. */
static int on_watch(CURL *easy, curl_socket_t fd, int what, void *user, void *remembered)
{
	struct minter *m = user;
	struct event *e = remembered;
	short wanted = (short)(((what & CURL_POLL_IN) ? EV_READ : 0) |
			       ((what & CURL_POLL_OUT) ? EV_WRITE : 0));

	(void)easy;
	if (e)
		event_free(e);
	e = what == CURL_POLL_REMOVE
		    ? NULL
		    : event_new(m->base, fd, (short)(wanted | EV_PERSIST), on_ready, m);
	curl_multi_assign(m->multi, fd, e);
	if (e)
		event_add(e, NULL);
	return 0;
}

/* --- the request --- */

static size_t on_bytes(char *p, size_t one, size_t n, void *user)
{
	struct token_request *r = user;

	(void)one;
	if (buf_len(&r->answer) + n > ANSWER_MAX)
		return 0; /* libcurl ends the request */
	buf_add(&r->answer, p, n);
	return n;
}

/* We keep none of them, but libcurl does. */
static size_t on_header(char *p, size_t one, size_t n, void *user)
{
	struct token_request *r = user;

	(void)p, (void)one;
	r->header_bytes += n;
	return r->header_bytes > HEADERS_MAX ? 0 : n;
}

/* The store of the link room, not libcurl's: both believe the same. */
static CURLcode on_tls_context(CURL *easy, void *tls, void *user)
{
	struct minter *m = user;

	(void)easy;
	SSL_CTX_set1_cert_store(tls, m->trust);
#ifdef SSL_OP_CLEANSE_PLAINTEXT
	SSL_CTX_set_options(tls, SSL_OP_CLEANSE_PLAINTEXT); /* there is a token in it */
#endif
	return CURLE_OK;
}

static void add_header(struct token_request *r, const char *name, const char *value)
{
	struct buf line = {0};

	buf_addf(&line, "%s: %s", name, value);
	buf_add(&line, "", 1);
	struct curl_slist *list = curl_slist_append(r->headers, buf_span(&line).p);
	if (list)
		r->headers = list;
	mem_wipe(line.p, line.size);
	buf_release(&line);
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

static char *make_body(const struct token_wish *wish)
{
	cJSON *object = cJSON_CreateObject();

	add_text(object, "subscribeKeys", wish->subscribe_keys);
	add_text(object, "subscribePatterns", wish->subscribe_patterns);
	add_text(object, "accessPattern", wish->access_pattern);
	char *text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	return text;
}

/* "host:port:address,address": what libcurl would find out by asking for the name. It does not ask
 * for an IPv6 address. */
static struct curl_slist *addresses_for(const char *host, uint16_t port,
					const struct resolver_answer *answer)
{
	struct buf line = {0};

	if (strchr(host, ':'))
		return NULL;
	buf_addf(&line, "%s:%u:", host, port);
	for (size_t i = 0; i < answer->n; i++) {
		bool v6 = strchr(answer->address[i], ':');
		buf_addf(&line, "%s%s%s%s", i ? "," : "", v6 ? "[" : "", answer->address[i],
			 v6 ? "]" : "");
	}
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
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT,
			 0L); /* there is nothing of libcurl's own to keep */
#endif
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
}

static void set_trust(CURL *easy, struct minter *m)
{
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls_context);
	curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, m);
}

/* Never the environment's proxy: who wants one says so. The key is for the service only. */
static void set_proxy(CURL *easy, const struct minter *m)
{
	curl_easy_setopt(easy, CURLOPT_PROXY, m->proxy ? m->proxy : "");
	if (!m->proxy)
		return;
	curl_easy_setopt(easy, CURLOPT_PROXYTYPE, (long)CURLPROXY_HTTP);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
}

static void set_request(CURL *easy, struct token_request *r, long ms)
{
	curl_easy_setopt(easy, CURLOPT_URL, r->minter->url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, ms);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->error);
	curl_easy_setopt(easy, CURLOPT_RESOLVE, r->addresses);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, r->headers);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(r->body));
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r->body);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L); /* the next one is hours away */
}

static CURLM *multi_new(struct minter *m)
{
	CURLM *multi = curl_multi_init();

	if (!multi)
		return NULL;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_watch);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, m);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timeout_wish);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, m);
	return multi;
}

static void begin(struct token_request *r, const struct resolver_answer *answer)
{
	struct minter *m = r->minter;
	int64_t left = r->deadline - clock_mono_ms();

	r->addresses = m->proxy_host ? addresses_for(m->proxy_host, m->proxy_port, answer)
				     : addresses_for(m->host, m->port, answer);
	if (!m->multi)
		m->multi = multi_new(m);
	r->easy = m->multi ? curl_easy_init() : NULL;
	if (!r->easy) {
		fail(r, "no memory");
		return;
	}
	set_protocols(r->easy);
	set_trust(r->easy, m);
	set_proxy(r->easy, m);
	set_request(r->easy, r, left > 0 ? (long)left : 1);
	if (curl_multi_add_handle(m->multi, r->easy) != CURLM_OK)
		fail(r, "libcurl could not begin");
}

static void on_resolved(void *owner, const struct resolver_answer *answer)
{
	struct token_request *r = owner;
	char phrase[200];

	r->question = NULL;
	if (answer->n) {
		begin(r, answer);
		return;
	}
	snprintf(phrase, sizeof(phrase), "the token request failed: %.80s: %s",
		 r->minter->proxy_host ? r->minter->proxy_host : r->minter->host, answer->why);
	fail(r, phrase);
}

static void on_refusal(evutil_socket_t fd, short what, void *user)
{
	struct token_request *r = user;

	(void)fd, (void)what;
	fail(r, r->refusal_why);
}

static const char *objection(const struct minter *m, const struct token_wish *wish,
			     const struct token_request *r)
{
	if (m->tls && m->trust_fault)
		return m->trust_fault;
	if (!*wish->api_key || !printable(wish->api_key))
		return "the API key has characters in it that can't be sent";
	return r->body && r->headers ? NULL : "no memory";
}

struct token_request *token_mint(struct minter *m, const struct token_wish *wish, token_done *done,
				 void *owner)
{
	struct token_request *r = mem_zalloc(sizeof(*r));

	*r = (struct token_request){
		.minter = m,
		.done = done,
		.owner = owner,
		.deadline = clock_mono_ms() + m->timeout_ms,
		.refusal = timer_new(m->base, on_refusal, r),
		.body = make_body(wish),
	};
	LIST_INSERT_HEAD(&m->requests, r, entry);
	buf_room(&r->answer, ANSWER_MAX); /* so that it is never moved, and leaves no copy */
	add_header(r, "x-api-key", wish->api_key);
	add_header(r, "Content-Type", "application/json");
	add_header(r, "Accept", "application/json");
	add_header(r, "Expect",
		   ""); /* without value: not sent, although libcurl would for a long body */
	r->refusal_why = objection(m, wish, r);
	if (r->refusal_why)
		event_active(r->refusal, EV_TIMEOUT, 1);
	else
		r->question = resolver_ask(m->base, m->proxy_host ? m->proxy_host : m->host,
					   m->timeout_ms, on_resolved, r);
	return r;
}

void token_cancel(struct token_request *r)
{
	struct minter *m = r->minter;

	if (!r->done)
		return; /* we are called from within it, and the request ends anyway */
	enter(m);
	destroy_request(r);
	leave(m);
}

/* --- the minter --- */

/* What libcurl gives back is overwritten first: among it is all that it makes of our headers, and
 * of the answer. */
static void wiping_free(void *p)
{
	mem_wipe(p, malloc_usable_size(p));
	free(p);
}

static void *wiping_realloc(void *p, size_t n)
{
	size_t had = malloc_usable_size(p);
	void *moved = malloc(n);

	if (moved && p) {
		memcpy(moved, p, had < n ? had : n);
		wiping_free(p);
	}
	return moved;
}

static char *make_url(const char *scheme, const char *host, uint16_t port, const char *prefix,
		      const char *path)
{
	bool v6 = strchr(host, ':');
	struct buf text = {0};

	buf_addf(&text, "%s://%s%s%s:%u%s%s", scheme, v6 ? "[" : "", host, v6 ? "]" : "", port,
		 prefix, path);
	char *url = mem_strndup(buf_span(&text).p, buf_len(&text));
	buf_release(&text);
	return url;
}

struct minter *minter_new(struct event_base *base, const struct minter_config *config)
{
	struct minter *m = mem_zalloc(sizeof(*m));

	/* Counted: minter_free() undoes it. */
	curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc, strdup,
			     calloc);
	*m = (struct minter){
		.base = base,
		.timer = timer_new(base, on_timer, m),
		.trust = X509_STORE_new(),
		.host = mem_strdup(config->host),
		.proxy_host = config->proxy_host ? mem_strdup(config->proxy_host) : NULL,
		.url = make_url(config->tls ? "https" : "http", config->host, config->port,
				config->path_prefix, "/token/websocket"),
		.proxy = config->proxy_host
				 ? make_url("http", config->proxy_host, config->proxy_port, "", "")
				 : NULL,
		.port = config->port,
		.proxy_port = config->proxy_port,
		.tls = config->tls,
		.timeout_ms = config->timeout_ms,
	};
	LIST_INIT(&m->requests);
	if (!m->timer || !m->trust) {
		log_error("out of memory: libcurl could not be initialised");
		abort();
	}
	trust_fill(m->trust, config->ca_file, &m->trust_fault);
	return m;
}

void minter_set_timeout(struct minter *m, int timeout_ms)
{
	m->timeout_ms = timeout_ms;
}

void minter_free(struct minter *m)
{
	enter(m);
	m->freed = true;
	leave(m);
}
