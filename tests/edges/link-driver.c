/* link-driver - one link to a server, told what to do on stdin, saying on stdout what the link says.
 *
 *   link-driver [--plain] [--ca FILE] [--timeout MS] [--max BYTES] [--proxy ADDRESS:PORT] ADDRESS PORT HOST PATH
 *
 * Commands, one a line: connect, send TEXT, fill COUNT SIZE, ping, close CODE, free, unsent, gap, exit. "on EVENT COMMAND"
 * keeps a command for when the event has come, to be done from within the link's own call. Every line said begins with
 * the event's name; "gap" says the longest time (ms) that the loop kept a timer waiting. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <unistd.h>

#include <event2/event.h>

#include "buf.h"
#include "clock.h"
#include "link.h"
#include "log.h"
#include "mem.h"

static struct event_base *base;
static struct link_context *context;
static struct link *the_link;
static struct link_target target = {.tls = true, .connect_timeout_ms = 5000, .max_message = 1 << 20};
static struct buf input;
static int64_t last_beat, worst_gap;

enum { EVENTS = 5 };
static const char *const event_name[EVENTS] = {"open", "message", "pong", "drained", "closed"};
static char *reaction[EVENTS];

static void command(char *line);

static void react(int which)
{
	char *line = reaction[which];

	reaction[which] = NULL;
	if (line)
		command(line);
	free(line);
}

static void on_open(void *owner)
{
	(void)owner;
	printf("open\n");
	react(0);
}

static void on_message(void *owner, struct span text, unsigned flags)
{
	unsigned sum = 0;

	(void)owner;
	for (size_t i = 0; i < text.n; i++)
		sum = sum * 31 + (unsigned char)text.p[i];
	printf("message %s%s%zu %u %.*s\n", flags & LINK_BINARY ? "binary " : "", flags & LINK_TRUNCATED ? "truncated " : "",
	       text.n, sum, text.n < 200 ? (int)text.n : 200, text.p);
	react(1);
}

static void on_pong(void *owner)
{
	(void)owner;
	printf("pong\n");
	react(2);
}

static void on_drained(void *owner)
{
	(void)owner;
	printf("drained\n");
	react(3);
}

static void on_closed(void *owner, const struct link_end *end)
{
	(void)owner;
	printf("closed open=%d status=%d retry=%d code=%d why=%s\n", end->was_open, end->http_status, end->retry_after_s,
	       end->close_code, end->why);
	react(4);
}

static const struct link_ops ops = {on_open, on_message, on_pong, on_drained, on_closed};

static void do_connect(char *rest)
{
	const char *why = "?";

	(void)rest;
	the_link = link_connect(context, &target, &ops, NULL, &why);
	if (!the_link)
		printf("refused why=%s\n", why);
}

static void do_send(char *rest)
{
	size_t n = strlen(rest), half = n / 2;

	link_send(the_link, (struct span){rest, half}, (struct span){rest + half, n - half});
}

static void do_fill(char *rest)
{
	size_t count = strtoul(rest, &rest, 10), size = strtoul(rest, NULL, 10);
	char *text = mem_alloc(size + 1);

	memset(text, 'x', size);
	for (size_t i = 0; i < count; i++)
		link_send(the_link, (struct span){text, size}, SPAN(""));
	free(text);
}

static void do_ping(char *rest)
{
	(void)rest;
	link_ping(the_link);
}

static void do_close(char *rest)
{
	link_close(the_link, atoi(rest));
}

static void do_free(char *rest)
{
	(void)rest;
	link_free(the_link);
	the_link = NULL;
	printf("freed\n");
}

static void do_unsent(char *rest)
{
	(void)rest;
	printf("unsent %zu\n", link_unsent(the_link));
}

static void do_gap(char *rest)
{
	(void)rest;
	printf("gap %lld\n", (long long)worst_gap);
	worst_gap = 0;
}

static void do_on(char *rest)
{
	size_t n = strcspn(rest, " ");

	for (int i = 0; i < EVENTS; i++) {
		if (strlen(event_name[i]) == n && memcmp(event_name[i], rest, n) == 0) {
			free(reaction[i]);
			reaction[i] = mem_strdup(rest + n + 1);
		}
	}
}

static void do_exit(char *rest)
{
	(void)rest;
	event_base_loopbreak(base);
}

static const struct {
	const char *name;
	void (*run)(char *rest);
} commands[] = {
	{"connect", do_connect}, {"send", do_send}, {"fill", do_fill},	    {"ping", do_ping}, {"close", do_close},
	{"free", do_free},       {"gap", do_gap},   {"unsent", do_unsent}, {"on", do_on},     {"exit", do_exit},
};

static void command(char *line)
{
	size_t n = strcspn(line, " ");

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strlen(commands[i].name) == n && memcmp(commands[i].name, line, n) == 0) {
			commands[i].run(line + n + (line[n] == ' '));
			return;
		}
	}
	printf("unknown command\n");
}

static void on_input(evutil_socket_t fd, short what, void *user)
{
	char *end;
	ssize_t n = read(fd, buf_room(&input, 65536), 65536);

	(void)what, (void)user;
	if (n <= 0) {
		event_base_loopbreak(base);
		return;
	}
	buf_grew(&input, (size_t)n);
	while (buf_len(&input) && (end = memchr(buf_span(&input).p, '\n', buf_len(&input)))) {
		struct span line = {buf_span(&input).p, (size_t)(end - buf_span(&input).p)};
		char *copy = mem_strndup(line.p, line.n);
		buf_take(&input, line.n + 1);
		command(copy);
		free(copy);
	}
}

static void on_beat(evutil_socket_t fd, short what, void *user)
{
	int64_t now = clock_mono_ms();

	(void)fd, (void)what, (void)user;
	if (last_beat && now - last_beat > worst_gap)
		worst_gap = now - last_beat;
	last_beat = now;
}

static int options(int argc, char **argv, const char **ca)
{
	int i = 1;

	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (strcmp(argv[i], "--plain") == 0)
			target.tls = false;
		else if (strcmp(argv[i], "--ca") == 0)
			*ca = argv[++i];
		else if (strcmp(argv[i], "--timeout") == 0)
			target.connect_timeout_ms = atoi(argv[++i]);
		else if (strcmp(argv[i], "--max") == 0)
			target.max_message = strtoul(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--proxy") == 0) {
			char *colon = strrchr(argv[++i], ':');
			*colon = '\0';
			target.proxy_address = argv[i];
			target.proxy_port = (uint16_t)atoi(colon + 1);
		}
	}
	return i;
}

int main(int argc, char **argv)
{
	static const struct timeval beat_interval = {.tv_usec = 5000};
	const char *ca = NULL, *why = "?";
	int i = options(argc, argv, &ca);

	if (argc - i != 4)
		return 2;
	target.address = argv[i];
	target.port = (uint16_t)atoi(argv[i + 1]);
	target.host = argv[i + 2];
	target.path = argv[i + 3];
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_DEBUG);
	base = event_base_new();
	context = link_context_new(base, ca, &why);
	if (!context) {
		printf("no context why=%s\n", why);
		return 1;
	}
	struct event *in = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, NULL);
	struct event *beat = event_new(base, -1, EV_PERSIST, on_beat, NULL);
	event_add(in, NULL);
	event_add(beat, &beat_interval);
	event_base_dispatch(base);
	if (the_link)
		link_free(the_link);
	link_context_free(context);
	event_free(in);
	event_free(beat);
	for (i = 0; i < EVENTS; i++)
		free(reaction[i]);
	buf_release(&input);
	event_base_free(base);
	return 0;
}
