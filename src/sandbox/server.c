#include "server.h"

#include <event2/event.h>
#include <event2/listener.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "base/timer.h"
#include "conn.h"
#include "ports.h"

enum { BACKLOG = 1024, ACCEPT_PAUSE_MS = 100 };

struct server {
	struct service *service;
	struct event_base *base;
	SSL_CTX *tls; /* NULL: plain HTTP */
	struct ports ports;
	struct evconnlistener *listeners[2];
	struct event *signals[2];
	struct event *accept_again;
	struct conn_list conns;
	bool stopped;
};

/* --- accepting */

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *address,
		      int length, void *arg)
{
	struct server *server = arg;

	(void)l;
	(void)address;
	(void)length;
	conn_new(&server->conns, server->service, server->base, fd, server->tls);
}

static void switch_accepting(struct server *server, int (*to)(struct evconnlistener *))
{
	for (int i = 0; i < 2; i++) {
		if (server->listeners[i])
			to(server->listeners[i]);
	}
}

/* Mostly there are no descriptors left. */
static void on_accept_error(struct evconnlistener *l, void *arg)
{
	struct server *server = arg;

	(void)l;
	switch_accepting(server, evconnlistener_disable);
	timer_start(server->accept_again, ACCEPT_PAUSE_MS);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	switch_accepting(arg, evconnlistener_enable);
}

static bool listen_on(struct server *server, int i, int *fd)
{
	if (*fd < 0)
		return true;
	server->listeners[i] =
		evconnlistener_new(server->base, on_accept, server,
				   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, *fd);
	if (!server->listeners[i])
		return false;
	*fd = -1; /* the listener's now */
	evconnlistener_set_error_cb(server->listeners[i], on_accept_error);
	return true;
}

/* --- set-up */

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	struct server *server = arg;

	(void)number;
	(void)what;
	server->stopped = true;
	event_base_loopbreak(server->base);
}

static bool watch_signals(struct server *server)
{
	static const int SIGNALS[] = {SIGTERM, SIGINT};

	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 2; i++) {
		/* While the server is being freed: whoever asks again is too late to be told. */
		signal(SIGNALS[i], SIG_IGN);
		server->signals[i] = watch_new(server->base, SIGNALS[i], EV_SIGNAL | EV_PERSIST,
					       on_signal, server);
		if (watch_start(server->signals[i]) < 0)
			return false;
	}
	return true;
}

/* The SDK and the daemon speak nothing else. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n,
			   const unsigned char *in, unsigned in_n, void *arg)
{
	static const unsigned char HTTP_1_1[] = "\x08http/1.1";
	unsigned char *chosen;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, n, HTTP_1_1, sizeof(HTTP_1_1) - 1, in, in_n) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static bool open_tls(struct server *server)
{
	const struct options *o = server->service->options;

	if (!o->tls_cert)
		return true;
	server->tls = SSL_CTX_new(TLS_server_method());
	if (server->tls && SSL_CTX_use_certificate_chain_file(server->tls, o->tls_cert) == 1 &&
	    SSL_CTX_use_PrivateKey_file(server->tls, o->tls_key, SSL_FILETYPE_PEM) == 1 &&
	    SSL_CTX_check_private_key(server->tls) == 1) {
		SSL_CTX_set_alpn_select_cb(server->tls, choose_protocol, NULL);
		return true;
	}
	fprintf(stderr, "hpkv-sandbox: the certificate or its key can't be used: %s\n",
		ERR_reason_error_string(ERR_peek_last_error()));
	return false;
}

static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static bool open_server(struct server *server)
{
	raise_file_limit();
	server->base = event_base_new();
	if (!server->base)
		return false;
	server->accept_again = timer_new(server->base, on_accept_again, server);
	return open_tls(server) && watch_signals(server) &&
	       listen_on(server, 0, &server->ports.v4_fd) &&
	       listen_on(server, 1, &server->ports.v6_fd);
}

struct server *server_new(struct service *sv)
{
	struct server *server = mem_zalloc(sizeof(*server));
	int result = ports_hold(&server->ports, sv->options->port);

	server->service = sv;
	if (result < 0)
		fprintf(stderr,
			"hpkv-sandbox: port %d can't be had on the loopback addresses: %s\n",
			sv->options->port, strerror(-result));
	else if (open_server(server))
		return server;
	else
		fputs("hpkv-sandbox: the server could not be started\n", stderr);
	server_free(server);
	return NULL;
}

void server_free(struct server *server)
{
	while (server->conns.first)
		conn_free(server->conns.first);
	for (int i = 0; i < 2; i++) {
		if (server->listeners[i])
			evconnlistener_free(server->listeners[i]);
		if (server->signals[i])
			event_free(server->signals[i]);
	}
	if (server->accept_again)
		event_free(server->accept_again);
	SSL_CTX_free(server->tls);
	if (server->base)
		event_base_free(server->base);
	ports_release(&server->ports);
	free(server);
}

int server_port(const struct server *server)
{
	return server->ports.port;
}

int server_run(struct server *server)
{
	event_base_dispatch(server->base);
	return server->stopped ? 0 : -1;
}
