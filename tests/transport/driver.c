#include "driver.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

enum { REACTIONS = 16, CHUNK = 65536 };

static struct event_base *base;
static const struct driver_command *commands;
static struct buf input;
static unsigned beats;
static struct {
	char *event, *line;
} reactions[REACTIONS];

static bool builtin(const char *line)
{
	if (strcmp(line, "beats") == 0) {
		printf("beats %u\n", beats);
		beats = 0;
	} else if (strcmp(line, "exit") == 0) {
		event_base_loopbreak(base);
	} else {
		return false;
	}
	return true;
}

void driver_do(char *line)
{
	size_t n = strcspn(line, " ");

	if (builtin(line))
		return;
	for (const struct driver_command *c = commands; c->name; c++) {
		if (strlen(c->name) == n && memcmp(c->name, line, n) == 0) {
			c->run(line + n + (line[n] == ' '));
			return;
		}
	}
	printf("unknown command: %s\n", line);
}

void driver_when(const char *event, const char *line)
{
	for (int i = 0; i < REACTIONS; i++) {
		if (!reactions[i].event) {
			reactions[i].event = mem_strdup(event);
			reactions[i].line = mem_strdup(line);
			return;
		}
	}
}

void driver_react(const char *event)
{
	for (int i = 0; i < REACTIONS; i++) {
		char *line = reactions[i].line;
		if (!line || strcmp(reactions[i].event, event) != 0)
			continue;
		free(reactions[i].event);
		reactions[i].event = reactions[i].line = NULL;
		driver_do(line);
		free(line);
	}
}

static void on_input(evutil_socket_t fd, short what, void *user)
{
	ssize_t n = read(fd, buf_room(&input, CHUNK), CHUNK);
	char *end;

	(void)what, (void)user;
	if (n <= 0) {
		event_base_loopbreak(base);
		return;
	}
	buf_grew(&input, (size_t)n);
	while (buf_len(&input) && (end = memchr(buf_span(&input).p, '\n', buf_len(&input)))) {
		char *line = mem_strndup(buf_span(&input).p, (size_t)(end - buf_span(&input).p));
		buf_take(&input, strlen(line) + 1);
		driver_do(line);
		free(line);
	}
}

static void on_beat(evutil_socket_t fd, short what, void *user)
{
	(void)fd, (void)what, (void)user;
	beats++;
}

struct event_base *driver_begin(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_DEBUG);
	base = event_base_new();
	return base;
}

void driver_run(const struct driver_command *list)
{
	static const struct timeval interval = {.tv_usec = 5000};
	struct event *in = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, NULL);
	struct event *beat = event_new(base, -1, EV_PERSIST, on_beat, NULL);

	commands = list;
	event_add(in, NULL);
	if (!getenv("DRIVER_NO_BEAT"))
		event_add(beat, &interval);
	event_base_dispatch(base);
	event_free(in);
	event_free(beat);
}

void driver_end(void)
{
	event_base_loop(base, EVLOOP_NONBLOCK); /* what a cancelled question leaves behind */
	event_base_free(base);
	for (int i = 0; i < REACTIONS; i++) {
		free(reactions[i].event);
		free(reactions[i].line);
	}
	buf_release(&input);
}
