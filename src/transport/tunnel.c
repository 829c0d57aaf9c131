#include "transport/tunnel.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "transport/curl_loop.h"
#include "base/secret.h"

/* ---- the dialogue ---- */

void tunnel_prepare(struct tunnel_talk *talk, CURL *easy, const char *login)
{
	const char *colon = login ? strchr(login, ':') : NULL;

	/* The socket leads to the proxy; libcurl needs no address of it. */
	curl_easy_setopt(easy, CURLOPT_PROXY, "http://127.0.0.1:1");
	curl_easy_setopt(easy, CURLOPT_PROXYTYPE, (long)CURLPROXY_HTTP);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	/* Headers for the service are not for the proxy. */
	curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
	if (!colon)
		return;
	talk->has_login = true;
	talk->user = secret_dupn(login, (size_t)(colon - login));
	talk->password = secret_dup(colon + 1);
	curl_easy_setopt(easy, CURLOPT_PROXYUSERNAME, talk->user);
	curl_easy_setopt(easy, CURLOPT_PROXYPASSWORD, talk->password);
	curl_easy_setopt(easy, CURLOPT_PROXYAUTH, (long)CURLAUTH_BASIC);
}

void tunnel_forget(struct tunnel_talk *talk)
{
	secret_free(&talk->user);
	secret_free(&talk->password);
	*talk = (struct tunnel_talk){0};
}

/* "HTTP/1.1 407 Proxy Authentication Required" */
static void read_status_line(struct tunnel_talk *t, const char *p, size_t n)
{
	char line[TUNNEL_PHRASE_MAX + sizeof("HTTP/1.1 407 ")], *phrase = line;
	size_t kept = n < sizeof(line) - 1 ? n : sizeof(line) - 1;
	int status = 0, at = 0;

	memcpy(line, p, kept);
	line[kept] = '\0';
	line[strcspn(line, "\r\n")] = '\0';
	if (sscanf(line, "HTTP/1.%*1[01] %3d%n", &status, &at) < 1 || (line[at] && line[at] != ' '))
		return;
	t->status = status;
	phrase += at + (line[at] == ' ');
	for (char *c = phrase; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	snprintf(t->phrase, sizeof(t->phrase), "%s", phrase);
}

size_t tunnel_read(struct tunnel_talk *t, const char *line, size_t n)
{
	bool blank = true;

	t->head_bytes += n;
	if (t->head_bytes > TUNNEL_HEAD_MAX)
		return 0;
	if (!t->status)
		read_status_line(t, line, n);
	for (size_t i = 0; i < n; i++)
		blank &= line[i] == '\r' || line[i] == '\n';
	if (!blank || !t->status)
		return n;
	t->over = t->status / 100 == 2;
	return t->over ? n : 0;
}

void tunnel_phrase(const struct tunnel_talk *t, CURLcode result, const char *error, char *why,
		   size_t size)
{
	const char *hint = t->status != 407 ? ""
			   : t->has_login   ? ": it does not take our credentials"
					    : ": it wants credentials, see proxy_credentials_file";

	if (t->head_bytes > TUNNEL_HEAD_MAX || strstr(error, "too large"))
		snprintf(why, size, "the proxy's answer is too long");
	else if (t->status && t->status / 100 != 2)
		snprintf(why, size, "the proxy answered %d%s%s%s%s", t->status,
			 *t->phrase ? " (" : "", t->phrase, *t->phrase ? ")" : "", hint);
	else if (result == CURLE_OPERATION_TIMEDOUT)
		snprintf(why, size, "the proxy did not answer in time");
	else if (t->head_bytes && !t->status)
		snprintf(why, size, "the proxy's answer is not HTTP");
	else
		snprintf(why, size, "the proxy closed the connection before it had answered");
}

/* ---- a tunnel by itself ---- */

struct tunnel {
	struct curl_loop *curl_loop;
	CURL *easy;
	int fd;
	bool given; /* given to libcurl once */
	struct tunnel_talk talk;
	char error[CURL_ERROR_SIZE];
	tunnel_done *done;
	void *owner;
};

static void destroy(struct tunnel *t)
{
	if (t->easy) {
		curl_loop_remove(t->curl_loop, t->easy);
		curl_easy_cleanup(t->easy);
	}
	if (t->curl_loop)
		curl_loop_free(t->curl_loop);
	tunnel_forget(&t->talk);
	free(t);
}

static size_t on_header(char *p, size_t one, size_t n, void *user)
{
	struct tunnel *t = user;

	(void)one;
	return tunnel_read(&t->talk, p, n);
}

static void on_done(void *owner, CURL *easy, CURLcode result)
{
	struct tunnel *t = owner;
	char why[200];
	struct tunnel_answer answer = {.status = t->talk.status};
	tunnel_done *done = t->done;
	void *whose = t->owner;

	(void)easy;
	if (result != CURLE_OK) {
		tunnel_phrase(&t->talk, result, t->error, why, sizeof(why));
		answer.why = why;
	}
	destroy(t);
	done(whose, &answer);
}

/* There is one socket: a second attempt of libcurl gets none. */
static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct tunnel *t = user;

	(void)purpose, (void)address;
	if (t->given)
		return CURL_SOCKET_BAD;
	t->given = true;
	return t->fd;
}

static int on_opened(void *user, curl_socket_t fd, curlsocktype purpose)
{
	(void)user, (void)fd, (void)purpose;
	return CURL_SOCKOPT_ALREADY_CONNECTED;
}

static int on_close(void *user, curl_socket_t fd)
{
	(void)user, (void)fd;
	return 0; /* it stays ours */
}

static void set_request(struct tunnel *t, const struct tunnel_wish *wish)
{
	bool v6 = strchr(wish->host, ':');
	struct buf url = {0};
	CURL *easy = t->easy;

	buf_addf(&url, "http://%s%s%s:%u/", v6 ? "[" : "", wish->host, v6 ? "]" : "", wish->port);
	buf_add(&url, "", 1);
	curl_easy_setopt(easy, CURLOPT_URL, buf_span(&url).p);
	buf_release(&url);
	tunnel_prepare(&t->talk, easy, wish->login);
	curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)wish->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_opened);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
}

struct tunnel *tunnel_new(struct event_base *base, const struct tunnel_wish *wish,
			  tunnel_done *done, void *owner)
{
	struct tunnel *t = mem_zalloc(sizeof(*t));

	*t = (struct tunnel){.fd = wish->fd, .done = done, .owner = owner};
	t->curl_loop = curl_loop_new(base, on_done, t);
	t->easy = t->curl_loop ? curl_easy_init() : NULL;
	if (t->easy) {
		set_request(t, wish);
		if (curl_loop_add(t->curl_loop, t->easy) == 0)
			return t;
	}
	destroy(t);
	return NULL;
}

void tunnel_cancel(struct tunnel *t)
{
	destroy(t);
}
