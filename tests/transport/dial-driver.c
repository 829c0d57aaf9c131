/* dial-driver - connected sockets (driver.h).
 *
 *   dial-driver [--timeout MS] [--total MS] [--proxy HOST PORT] [--proxy-login USER:PASSWORD]
 *               RESOLV-CONF HOSTS HOST PORT
 *
 * Commands: dial; good; next WHY; giveup WHY (of the socket that was told of; it is closed); close;
 * hello (sends a line on it); free; when EVENT COMMAND (done from within the call). Events:
 * connected ADDRESS LEFT-MS; failed WHY. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/dial.h"
#include "driver.h"

static struct event_base *base;
static struct dial *dial;
static struct dial_memory memory;
static struct resolver_files files;
static struct dial_target target = {.address_ms = 5000, .files = &files};
static int fd = -1;

static void drop_socket(void)
{
	if (fd >= 0)
		close(fd);
	fd = -1;
}

static void on_connected(void *owner, int connected, int left_ms)
{
	struct sockaddr_storage peer;
	socklen_t n = sizeof(peer);
	char host[NI_MAXHOST] = "?";

	(void)owner;
	fd = connected;
	if (getpeername(fd, (struct sockaddr *)&peer, &n) == 0)
		getnameinfo((struct sockaddr *)&peer, n, host, sizeof(host), NULL, 0,
			    NI_NUMERICHOST);
	printf("connected %s %d\n", host, left_ms);
	driver_react("connected");
}

static void on_failed(void *owner, const char *why)
{
	(void)owner;
	printf("failed %s\n", why);
	driver_react("failed");
}

static void do_free(char *rest)
{
	(void)rest;
	if (dial)
		dial_free(dial);
	dial = NULL;
	drop_socket();
	printf("freed\n");
}

static void do_dial(char *rest)
{
	static const struct dial_ops ops = {on_connected, on_failed};

	(void)rest;
	drop_socket();
	if (dial)
		dial_free(dial);
	dial = dial_new(base, &target, &memory, &ops, NULL);
}

static void do_good(char *rest)
{
	(void)rest;
	dial_good(dial);
}

static void do_next(char *rest)
{
	drop_socket();
	dial_next(dial, rest);
}

static void do_giveup(char *rest)
{
	drop_socket();
	dial_give_up(dial, rest);
}

static void do_hello(char *rest)
{
	(void)rest;
	if (write(fd, "hello\n", 6) != 6)
		printf("lost\n");
}

static void do_when(char *rest)
{
	char *event = strsep(&rest, " ");

	driver_when(event, rest);
}

static const struct driver_command commands[] = {
	{"dial", do_dial},   {"good", do_good}, {"next", do_next}, {"giveup", do_giveup},
	{"hello", do_hello}, {"free", do_free}, {"when", do_when}, {0},
};

static char **options(char **arg)
{
	for (; *arg && strncmp(*arg, "--", 2) == 0; arg++) {
		if (strcmp(*arg, "--timeout") == 0) {
			target.address_ms = atoi(*++arg);
		} else if (strcmp(*arg, "--total") == 0) {
			target.total_ms = atoi(*++arg);
		} else if (strcmp(*arg, "--proxy") == 0) {
			target.proxy_host = *++arg;
			target.proxy_port = (uint16_t)atoi(*++arg);
		} else if (strcmp(*arg, "--proxy-login") == 0) {
			target.proxy_login = *++arg;
		}
	}
	return arg;
}

int main(int argc, char **argv)
{
	char **arg = options(argv + 1);

	if (argv + argc - arg != 4)
		return 2;
	files = (struct resolver_files){arg[0], arg[1]};
	target.host = arg[2];
	target.port = (uint16_t)atoi(arg[3]);
	base = driver_begin();
	driver_run(commands);
	if (dial)
		dial_free(dial);
	drop_socket();
	driver_end();
	return 0;
}
