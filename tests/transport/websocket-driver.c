/* websocket-driver - WebSockets to a server (driver.h).
 *
 *   websocket-driver [--plain] [--ca FILE] [--timeout MS] [--max BYTES] [--proxy ADDRESS PORT]
 *               [--proxy-login USER:PASSWORD] [--room BYTES] ADDRESS PORT HOST PATH
 *
 * Commands: connect; send TEXT; fill COUNT SIZE; ping; close CODE; free; unsent; use N (of two
 * WebSockets; 0 at first); when EVENT COMMAND (done from within the WebSocket's own call, or, of
 * "connected", as soon as there is one). The socket comes from the dial room, and has --room BYTES
 * for what it sends; a failure of that is told as the end of a WebSocket. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "transport/dial.h"
#include "driver.h"
#include "transport/websocket.h"
#include "transport/trust.h"
#include "base/mem.h"

static struct event_base *base;
static struct websocket_context *context;
static struct websocket *websockets[2];
static struct dial *dials[2];
static struct dial_memory memory;
static int current, room; /* bytes; 0: as the kernel likes */
static struct dial_target dial_to = {.address_ms = 5000};
static struct websocket_target target = {.tls = true, .max_message = 1 << 20};

/* Which of the two a line is about; nothing for the first. */
static const char *mark(const void *owner)
{
	return owner == &websockets[1] ? "second: " : "";
}

static void on_open(void *owner)
{
	printf("open %s\n", mark(owner));
	driver_react("open");
}

static void on_message(void *owner, struct span text, unsigned flags)
{
	char shown[201] = "";
	unsigned sum = 0;

	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];
		sum = sum * 31 + c;
		if (i < sizeof(shown) - 1)
			shown[i] = c >= ' ' && c < 0x7f ? (char)c : '.';
	}
	printf("message %s%s%s%zu %u %s\n", mark(owner), flags & WEBSOCKET_BINARY ? "binary " : "",
	       flags & WEBSOCKET_TRUNCATED ? "truncated " : "", text.n, sum, shown);
	driver_react("message");
}

static void on_heard(void *owner)
{
	(void)owner;
	driver_react("heard");
}

static void on_pong(void *owner, uint32_t number)
{
	printf("pong %s%u\n", mark(owner), (unsigned)number);
	driver_react("pong");
}

static void on_drained(void *owner)
{
	printf("drained %s\n", mark(owner));
	driver_react("drained");
}

static void on_closed(void *owner, const struct websocket_end *end)
{
	printf("closed %sopen=%d status=%d retry=%d code=%d why=%s\n", mark(owner), end->was_open,
	       end->http_status, end->retry_after_s, end->close_code, end->why);
	driver_react("closed");
}

static void on_connected(void *owner, int fd, int left_ms)
{
	static const struct websocket_ops ops = {on_open, on_message, on_heard,
						 on_pong, on_drained, on_closed};
	struct websocket **websocket = owner;
	const char *why = "?";

	if (room)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	target.timeout_ms = left_ms;
	*websocket = websocket_connect(context, fd, &target, &ops, websocket, &why);
	if (!*websocket)
		printf("refused %s\n", why);
	driver_react("connected");
}

static void on_no_address(void *owner, const char *why)
{
	on_closed(owner, &(struct websocket_end){.why = why, .retry_after_s = -1});
}

static void drop_dial(int i)
{
	if (dials[i])
		dial_free(dials[i]);
	dials[i] = NULL;
}

static void do_connect(char *rest)
{
	static const struct dial_ops ops = {on_connected, on_no_address};

	(void)rest;
	drop_dial(current);
	dials[current] = dial_new(base, &dial_to, &memory, &ops, &websockets[current]);
}

static void do_use(char *rest)
{
	current = atoi(rest);
}

static void do_send(char *rest)
{
	size_t n = strlen(rest), half = n / 2;

	websocket_send(websockets[current], (struct span){rest, half},
		       (struct span){rest + half, n - half});
}

static void do_fill(char *rest)
{
	size_t count = strtoul(rest, &rest, 10), size = strtoul(rest, NULL, 10);
	char *text = mem_alloc(size + 1);

	memset(text, 'x', size);
	for (size_t i = 0; i < count; i++)
		websocket_send(websockets[current], (struct span){text, size}, SPAN(""));
	free(text);
}

static void do_ping(char *rest)
{
	static uint32_t number;

	(void)rest;
	websocket_ping(websockets[current], ++number);
}

static void do_close(char *rest)
{
	websocket_close(websockets[current], atoi(rest));
}

static void do_free(char *rest)
{
	(void)rest;
	drop_dial(current);
	if (websockets[current])
		websocket_free(websockets[current]);
	websockets[current] = NULL;
	printf("freed\n");
}

static void do_unsent(char *rest)
{
	(void)rest;
	printf("unsent %zu\n", websocket_unsent(websockets[current]));
}

static void do_when(char *rest)
{
	char *event = strsep(&rest, " ");

	driver_when(event, rest);
}

static const struct driver_command commands[] = {
	{"connect", do_connect}, {"use", do_use},
	{"send", do_send},       {"fill", do_fill},
	{"ping", do_ping},       {"close", do_close},
	{"free", do_free},       {"unsent", do_unsent},
	{"when", do_when},       {0},
};

static char **options(char **arg, const char **ca)
{
	for (; *arg && strncmp(*arg, "--", 2) == 0; arg++) {
		if (strcmp(*arg, "--plain") == 0)
			target.tls = false;
		else if (strcmp(*arg, "--ca") == 0)
			*ca = *++arg;
		else if (strcmp(*arg, "--timeout") == 0)
			dial_to.address_ms = atoi(*++arg);
		else if (strcmp(*arg, "--max") == 0)
			target.max_message = strtoul(*++arg, NULL, 10);
		else if (strcmp(*arg, "--room") == 0)
			room = atoi(*++arg);
		else if (strcmp(*arg, "--proxy") == 0) {
			dial_to.proxy_host = *++arg;
			dial_to.proxy_port = (uint16_t)atoi(*++arg);
		} else if (strcmp(*arg, "--proxy-login") == 0) {
			dial_to.proxy_login = *++arg;
		}
	}
	return arg;
}

int main(int argc, char **argv)
{
	const char *ca = NULL, *why = "?";
	char **arg = options(argv + 1, &ca);

	if (argv + argc - arg != 4)
		return 2;
	base = driver_begin();
	dial_to.port = target.port = (uint16_t)atoi(arg[1]);
	dial_to.host = dial_to.proxy_host ? arg[2] : arg[0];
	target.host = arg[2];
	target.path = arg[3];
	struct trust *trust = trust_new(ca);
	context = websocket_context_new(base, trust, &why);
	trust_unref(trust);
	if (!context) {
		printf("refused %s\n", why);
		driver_end();
		return 1;
	}
	driver_run(commands);
	for (int i = 0; i < 2; i++) {
		drop_dial(i);
		if (websockets[i])
			websocket_free(websockets[i]);
	}
	websocket_context_free(context);
	driver_end();
	return 0;
}
