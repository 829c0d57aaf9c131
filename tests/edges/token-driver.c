/* token-driver - token requests to a server, told what to do on stdin, saying on stdout how they end.
 *
 *   token-driver [--plain] [--ca FILE] [--timeout MS] [--proxy HOST:PORT] HOST PORT
 *
 * Commands, one a line: mint NAME KEY PATTERN-JSON|- SUBSCRIBE-JSON, cancel NAME, forget (frees the minter), gap, exit. "then
 * COMMAND" keeps a command to be done from within the call that ends the next request. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "buf.h"
#include "clock.h"
#include "log.h"
#include "mem.h"
#include "token.h"

enum { REQUESTS = 16 };

struct request {
	char *name;
	struct token_request *open;
};

static struct event_base *base;
static struct minter *minter;
static struct request requests[REQUESTS];
static char *then;
static struct buf input;
static int64_t last_beat, worst_gap;

static void command(char *line);

static void on_done(void *owner, const struct token_answer *a)
{
	struct request *r = owner;

	r->open = NULL;
	printf("done %s token=%s status=%d retry=%d why=%s\n", r->name, a->token ? a->token : "-", a->http_status,
	       a->retry_after_s, a->why ? a->why : "-");
	char *line = then;
	then = NULL;
	if (line)
		command(line);
	free(line);
}

static void do_mint(char *rest)
{
	char *more = NULL, *name = strtok_r(rest, " ", &more), *key = strtok_r(NULL, " ", &more),
	     *pattern = strtok_r(NULL, " ", &more), *subscribe = strtok_r(NULL, "", &more);
	struct token_wish wish = {
		.api_key = key,
		.subscribe = {subscribe, strlen(subscribe)},
		.fields = TOKEN_SUBSCRIBE_KEYS | TOKEN_SUBSCRIBE_PATTERNS,
		.access_pattern = {pattern, strcmp(pattern, "-") == 0 ? 0 : strlen(pattern)},
	};

	for (int i = 0; i < REQUESTS; i++) {
		if (!requests[i].name) {
			requests[i].name = mem_strdup(name);
			requests[i].open = token_mint(minter, &wish, on_done, &requests[i]);
			return;
		}
	}
}

static void do_cancel(char *rest)
{
	for (int i = 0; i < REQUESTS; i++) {
		if (requests[i].open && strcmp(requests[i].name, rest) == 0) {
			token_cancel(requests[i].open);
			requests[i].open = NULL;
			printf("cancelled %s\n", rest);
		}
	}
}

static void do_forget(char *rest)
{
	(void)rest;
	minter_free(minter);
	minter = NULL;
	printf("forgotten\n");
}

static void do_gap(char *rest)
{
	(void)rest;
	printf("gap %lld\n", (long long)worst_gap);
	worst_gap = 0;
}

static void do_then(char *rest)
{
	then = mem_strdup(rest);
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
	{"mint", do_mint}, {"cancel", do_cancel}, {"forget", do_forget},
	{"gap", do_gap},   {"then", do_then},	  {"exit", do_exit},
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
		size_t length = (size_t)(end - buf_span(&input).p);
		char *copy = mem_strndup(buf_span(&input).p, length);
		buf_take(&input, length + 1);
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

static int options(int argc, char **argv, struct minter_config *config)
{
	int i = 1;

	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (strcmp(argv[i], "--plain") == 0)
			config->tls = false;
		else if (strcmp(argv[i], "--ca") == 0)
			config->ca_file = argv[++i];
		else if (strcmp(argv[i], "--timeout") == 0)
			config->timeout_ms = atoi(argv[++i]);
		else if (strcmp(argv[i], "--proxy") == 0) {
			char *colon = strrchr(argv[++i], ':');
			*colon = '\0';
			config->proxy_host = argv[i];
			config->proxy_port = (uint16_t)atoi(colon + 1);
		}
	}
	return i;
}

int main(int argc, char **argv)
{
	static const struct timeval beat_interval = {.tv_usec = 5000};
	struct minter_config config = {.tls = true, .path_prefix = "", .timeout_ms = 5000};
	int i = options(argc, argv, &config);

	if (argc - i != 2)
		return 2;
	config.host = argv[i];
	config.port = (uint16_t)atoi(argv[i + 1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_DEBUG);
	base = event_base_new();
	minter = minter_new(base, &config);
	struct event *in = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, NULL);
	struct event *beat = event_new(base, -1, EV_PERSIST, on_beat, NULL);
	event_add(in, NULL);
	event_add(beat, &beat_interval);
	event_base_dispatch(base);
	if (minter)
		minter_free(minter);
	event_free(in);
	event_free(beat);
	event_base_loop(base, EVLOOP_NONBLOCK); /* what a cancelled question leaves behind */
	for (i = 0; i < REQUESTS; i++)
		free(requests[i].name);
	free(then);
	buf_release(&input);
	event_base_free(base);
	return 0;
}
