#include "library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum {
	HANDSHAKE_RESERVE =
		12, /* of the buffer, what is kept back for the library when a request is made */
	HANDSHAKE_MAX = 1024, /* the request without its path */
	BACKSTOP_S = 3600,    /* the library's own timeouts; ours are always shorter */
};

const char library_protocol[] = "hpkv";

bool library_put_path(const char *path, char **end, size_t room, struct span *request)
{
	static const char before[] = "GET / HTTP/1.1\r\n";
	const size_t method = sizeof("GET ") - 1;
	size_t used = LIBRARY_BUFFER - HANDSHAKE_RESERVE - room;
	size_t n = path ? strlen(path) : 0;
	char *start = *end - used;

	if (!n || n > room || used < sizeof(before) || used > HANDSHAKE_MAX ||
	    memcmp(start, before, sizeof(before) - 1))
		return false;
	memmove(start + method + n, start + method + 1, used - method - 1);
	memcpy(start + method, path, n);
	*end += n - 1;
	*request = (struct span){start, used + n - 1};
	return true;
}

const char *library_find_key(struct span request, size_t n)
{
	static const char name[] = "\r\nSec-WebSocket-Key: ";
	const char *at = memmem(request.p, request.n, name, sizeof(name) - 1);

	if (!at)
		return NULL;
	at += sizeof(name) - 1;
	return (size_t)(request.p + request.n - at) >= n + 2 && at[n] == '\r' ? at : NULL;
}

/* The library's log. It never saw the secrets in our paths, but what a server says may repeat them.
 */
static void on_log(int level, const char *line)
{
	static const char *const names[] = {"apiKey=", "token="};
	char text[512];

	(void)level;
	snprintf(text, sizeof(text), "%s", line);
	text[strcspn(text, "\r\n")] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char *secret = strstr(text, names[i]);
		if (secret)
			secret[strlen(names[i])] = '\0'; /* and whatever follows */
	}
	log_debug("libwebsockets: %s", text);
}

bool library_init(struct library *lib, lws_callback_function *callback, struct ssl_ctx_st *tls)
{
	/* All zero: no pings of its own. Ours go between whole frames and are answered to whoever
	 * sent them. */
	static const lws_retry_bo_t no_pings;
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.protocols = lib->protocols,
		.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT | LWS_SERVER_OPTION_EXPLICIT_VHOSTS,
		.pt_serv_buf_size = LIBRARY_BUFFER,
		.fd_limit_per_thread = 64, /* of the library's own descriptors */
		.max_http_header_data = 16384,
		.timeout_secs = BACKSTOP_S,
		.connect_timeout_secs = BACKSTOP_S,
		.retry_and_idle_policy = &no_pings,
		.provided_client_ssl_ctx = tls,
	};

	*lib = (struct library){
		.protocols = {{.name = library_protocol,
			       .callback = callback,
			       .rx_buffer_size = LIBRARY_BUFFER - LWS_PRE,
			       .tx_packet_size = LIBRARY_BUFFER}},
	};
	/* The library would obey it behind our back, resolving the proxy's name in a blocking way.
	 */
	unsetenv("http_proxy");
	unsetenv("socks_proxy");
	lws_set_log_level(LLL_ERR | LLL_WARN | LLL_NOTICE, on_log);
	lib->lws = lws_create_context(&info);
	if (!lib->lws)
		return false;
	info.vhost_name = "service";
	lib->vhost = lws_create_vhost(lib->lws, &info);
	return lib->vhost;
}

void library_fini(struct library *lib)
{
	if (lib->lws)
		lws_context_destroy(lib->lws);
}
