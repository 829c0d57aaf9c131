/* resolver-driver - questions for names (driver.h).
 *
 *   resolver-driver RESOLV-CONF HOSTS
 *
 * Commands: ask NAME HOST TIMEOUT-MS; cancel NAME; when done COMMAND (done from within the call
 * that answers the next question). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "base/mem.h"
#include "transport/resolver.h"

enum { QUESTIONS = 64 };

static struct event_base *base;
static struct resolver_files files;
static struct question {
	char *name;
	struct resolver *open;
} questions[QUESTIONS];

static void on_done(void *owner, const struct resolver_answer *answer)
{
	struct question *q = owner;

	q->open = NULL;
	printf("done %s", q->name);
	for (size_t i = 0; i < answer->n; i++)
		printf(" %s", answer->address[i]);
	printf("%s%s\n", answer->n ? "" : " why=", answer->n ? "" : answer->why);
	driver_react("done");
}

static void do_ask(char *rest)
{
	char *name = strsep(&rest, " "), *host = strsep(&rest, " ");

	for (int i = 0; i < QUESTIONS; i++) {
		struct question *q = &questions[i];
		if (!q->name) {
			q->name = mem_strdup(name);
			q->open = resolver_ask_with(base, &files, host, atoi(rest), on_done, q);
			printf("asked %s\n", q->name);
			return;
		}
	}
}

static void do_cancel(char *rest)
{
	for (int i = 0; i < QUESTIONS; i++) {
		if (questions[i].open && strcmp(questions[i].name, rest) == 0) {
			resolver_cancel(questions[i].open);
			questions[i].open = NULL;
			printf("cancelled %s\n", rest);
		}
	}
}

static void do_when(char *rest)
{
	char *event = strsep(&rest, " ");

	driver_when(event, rest);
}

static const struct driver_command commands[] = {
	{"ask", do_ask}, {"cancel", do_cancel}, {"when", do_when}, {0}};

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	files = (struct resolver_files){argv[1], argv[2]};
	base = driver_begin();
	driver_run(commands);
	for (int i = 0; i < QUESTIONS; i++) {
		if (questions[i].open)
			resolver_cancel(questions[i].open);
		free(questions[i].name);
	}
	driver_end();
	return 0;
}
