#include "server.h"

#include <libwebsockets.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "ports.h"
#include "rest.h"
#include "ws.h"

enum {
	BUFFER = 64 * 1024,    /* read and written at a time */
	HEAD_MAX = 65535 - 16, /* of a request: a token is in its first line, and may be long */
	FILES = 8192, /* libwebsockets sizes its tables by the limit of open files, which may be
			 huge */
};

struct server {
	struct service *service;
	struct lws_context *context;
	struct ports ports;
	volatile sig_atomic_t stopped;
};

/* A connection is one or the other; libwebsockets knows which. */
struct session {
	struct ws ws;
	struct rest rest;
};

static int confirm_upgrade(struct service *sv, struct lws *wsi, const char *protocol)
{
	int refusal = strcasecmp(protocol, "websocket") == 0 ? ws_admit(sv, wsi)
							     : HTTP_STATUS_BAD_REQUEST;

	return refusal ? rest_refuse_upgrade(wsi, refusal) : 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
		    size_t len)
{
	struct server *server = lws_context_user(lws_get_context(wsi));
	struct session *s = user;

	switch ((int)reason) {
	case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
		return confirm_upgrade(server->service, wsi, in);
	case LWS_CALLBACK_ESTABLISHED:
		return ws_open(&s->ws, server->service, wsi);
	case LWS_CALLBACK_RECEIVE:
		return ws_receive(&s->ws, (struct span){in, len});
	case LWS_CALLBACK_SERVER_WRITEABLE:
		return ws_writable(&s->ws);
	case LWS_CALLBACK_HTTP:
		return rest_begin(&s->rest, server->service, wsi, in);
	case LWS_CALLBACK_HTTP_BODY:
		return rest_body(&s->rest, (struct span){in, len});
	case LWS_CALLBACK_HTTP_BODY_COMPLETION:
		return rest_body_end(&s->rest);
	case LWS_CALLBACK_HTTP_WRITEABLE:
		return rest_writable(&s->rest);
	case LWS_CALLBACK_CLOSED:
	case LWS_CALLBACK_CLOSED_HTTP:
	case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
	case LWS_CALLBACK_WS_SERVER_DROP_PROTOCOL:
		if (s) {
			ws_close(&s->ws);
			rest_end(&s->rest);
		}
		return 0;
	}
	return 0;
}

static const struct lws_protocols PROTOCOLS[] = {
	{.name = "hpkv",
	 .callback = on_event,
	 .per_session_data_size = sizeof(struct session),
	 .rx_buffer_size = BUFFER},
	{0},
};

static void log_lws(int level, const char *line)
{
	(void)level;
	fprintf(stderr, "hpkv-sandbox: %s", line);
}

static bool listen_on(struct server *server, const char *name, const char *address,
		      uint64_t options)
{
	const struct options *o = server->service->options;
	struct lws_context_creation_info info = {
		.vhost_name = name,
		.iface = address,
		.port = server->ports.port,
		.protocols = PROTOCOLS,
		.options = options | LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT,
		.ssl_cert_filepath = o->tls_cert,
		.ssl_private_key_filepath = o->tls_key,
		.alpn = "http/1.1", /* the SDK and the daemon use HTTP/1.1 only */
		.timeout_secs = 30,
		.keepalive_timeout = 60,
	};

	return lws_create_vhost(server->context, &info) != NULL;
}

static bool open_context(struct server *server)
{
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT,
		.pt_serv_buf_size = BUFFER,
		.max_http_header_data2 = HEAD_MAX,
		.user = server,
	};
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max < FILES ? limit.rlim_max : FILES;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	lws_set_log_level(LLL_ERR, log_lws);
	server->context = lws_create_context(&info);
	return server->context &&
	       listen_on(server, "v4", "127.0.0.1", LWS_SERVER_OPTION_DISABLE_IPV6) &&
	       (!server->ports.has_v6 || listen_on(server, "v6", "::1",
						   LWS_SERVER_OPTION_IPV6_V6ONLY_MODIFY |
							   LWS_SERVER_OPTION_IPV6_V6ONLY_VALUE));
}

struct server *server_new(struct service *sv)
{
	struct server *server = mem_zalloc(sizeof(*server));
	int result = ports_hold(&server->ports, sv->options->port);

	server->service = sv;
	if (result < 0) {
		fprintf(stderr,
			"hpkv-sandbox: port %d can't be had on the loopback addresses: %s\n",
			sv->options->port, strerror(-result));
	} else if (open_context(server)) {
		ports_release(&server->ports);
		return server;
	} else {
		fputs("hpkv-sandbox: the server could not be started\n", stderr);
	}
	server_free(server);
	return NULL;
}

void server_free(struct server *server)
{
	if (server->context)
		lws_context_destroy(server->context);
	ports_release(&server->ports);
	free(server);
}

int server_port(const struct server *server)
{
	return server->ports.port;
}

int server_run(struct server *server)
{
	int result = 0;

	while (!server->stopped && result >= 0)
		result = lws_service(server->context, 0);
	return server->stopped ? 0 : -1;
}

void server_stop(struct server *server)
{
	server->stopped = 1;
	lws_cancel_service(server->context);
}
