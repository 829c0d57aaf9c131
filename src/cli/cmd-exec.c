/* exec: runs a command with an environment made of keys. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "commands.h"
#include "base/mem.h"
#include "environment.h"
#include "pages.h"
#include "visible.h"
#include "supervisor.h"

enum { OPT_PREFIX, OPT_JSON, OPT_UPCASE, OPT_WATCH, OPT_SIGNAL, OPT_GRACE };
enum { GRACE_MS = 10000, GRACE_MOST_MS = 3600000 };

/* ---- records, read once ---- */

struct records {
	struct hpkv_record *list; /* owned, as keys and values are */
	size_t n;
};

static void add(struct records *r, struct hpkv_bytes key, struct hpkv_bytes value)
{
	r->list = mem_resize(r->list, (r->n + 1) * sizeof(*r->list));
	r->list[r->n++] = (struct hpkv_record){{mem_strndup(key.p, key.n), key.n},
					       {mem_strndup(value.p, value.n), value.n}};
}

static void free_records(struct records *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free((char *)(size_t)r->list[i].key.p);
		free((char *)(size_t)r->list[i].value.p);
	}
	free(r->list);
}

static int read_prefix(struct cli *c, const char *prefix, struct records *r)
{
	const struct hpkv_answer *page;
	struct pages pages;
	int more;

	pages_of_prefix(&pages, c->hpkv, hpkv_str(prefix));
	while ((more = pages_next(&pages, PAGES_MOST, &page)) > 0) {
		for (size_t i = 0; i < page->n_records; i++)
			add(r, page->records[i].key, page->records[i].value);
	}
	int status = more ? cli_fail("exec", hpkv_str(prefix), page) : CLI_DONE;
	pages_end(&pages);
	return status;
}

static int read_object(struct cli *c, const char *key, struct records *r)
{
	const struct hpkv_answer *answer;
	struct hpkv_request q = {.op = HPKV_GET, .key = hpkv_str(key)};

	if (hpkv_call(c->hpkv, &q, &answer))
		return cli_fail("exec", q.key, answer);
	/* It may be below the prefix as well. */
	for (size_t i = 0; i < r->n; i++) {
		if (r->list[i].key.n == q.key.n && memcmp(r->list[i].key.p, key, q.key.n) == 0)
			return CLI_DONE;
	}
	add(r, q.key, answer->value);
	return CLI_DONE;
}

static int exec_once(struct cli *c, const struct supervisor_options *o)
{
	struct records records = {0};
	char why[ENVIRONMENT_WHY_MAX];
	struct environment e = {0};
	int status = CLI_DONE;

	if (o->environment.prefix)
		status = read_prefix(c, o->environment.prefix, &records);
	if (!status && o->environment.object)
		status = read_object(c, o->environment.object, &records);
	if (!status && !environment_make(&e, &o->environment, records.list, records.n, why)) {
		cli_say("exec: %s", why);
		status = CLI_USAGE;
	}
	free_records(&records);
	if (!status) {
		char **environment = environment_join(&e);
		signal(SIGCHLD, SIG_DFL); /* it is ignored so far, and that would be inherited */
		execvpe(o->argv[0], o->argv, environment);
		status = supervisor_not_started(o->argv[0], errno);
		free(environment);
	}
	environment_free(&e);
	return status;
}

/* ---- options ---- */

/* A name with or without SIG, or a number; 0: it is none. */
static int signal_of(const char *text)
{
	long number;

	if (cli_count(text, 1, SIGRTMAX, &number))
		return (int)number;
	if (strncasecmp(text, "SIG", 3) == 0)
		text += 3;
	for (int i = 1; i < NSIG; i++) {
		const char *name = sigabbrev_np(i);
		if (name && strcasecmp(name, text) == 0)
			return i;
	}
	return 0;
}

static int read_options(struct cli *c, struct supervisor_options *o)
{
	const char *sent = c->opt[OPT_SIGNAL], *grace = c->opt[OPT_GRACE];

	o->environment = (struct environment_options){.prefix = c->opt[OPT_PREFIX],
						      .object = c->opt[OPT_JSON],
						      .upcase = c->opt[OPT_UPCASE] != NULL,
						      .argv = o->argv};
	if (!o->environment.prefix && !o->environment.object)
		return cli_usage(c, "--prefix or --json says which keys");
	if (o->environment.prefix && strlen(o->environment.prefix) > HPKV_KEY_MAX)
		return cli_usage(c, "no key is as long as this prefix");
	if ((sent || grace) && !c->opt[OPT_WATCH])
		return cli_usage(c, "--signal and --grace are about --watch");
	if (sent && !(o->signal = signal_of(sent)))
		return cli_usage(c, "'%s' is no signal", visible_name(hpkv_str(sent)));
	o->grace_ms = GRACE_MS;
	if (grace && !cli_time(grace, GRACE_MOST_MS, &o->grace_ms))
		return cli_usage(c, "--grace '%s' is not a time like 5s",
				 visible_name(hpkv_str(grace)));
	return CLI_DONE;
}

static int run(struct cli *c, int argc, char **argv)
{
	struct supervisor_options o = {.argv = argv};
	int status = read_options(c, &o);

	(void)argc;
	if (status)
		return status;
	return c->opt[OPT_WATCH] ? supervise(c, &o) : exec_once(c, &o);
}

const struct command cmd_exec = {
	.name = "exec",
	.args = "-- COMMAND [WORD]...",
	.summary = "run a command with an environment made of keys",
	.help = "Runs COMMAND with a variable for each key that begins with the prefix, named\n"
		"by what is behind it; what can't stand in a name is a _. --json takes the\n"
		"members of the object that KEY holds. Two keys with one name, or a NUL in a\n"
		"value, are errors, and nothing is run (exit status 2). COMMAND takes the place\n"
		"of hpkv; 127: there is no such command, 126: it can't be run.\n"
		"With --watch, hpkv stays its parent: when values change it ends COMMAND\n"
		"(SIGTERM, after --grace SIGKILL) and starts it again, or sends it --signal.\n"
		"Signals are passed on, and the exit status is COMMAND's.\n"
		"\n"
		"  hpkv exec --prefix app: --upcase -- ./server\n"
		"  hpkv exec --json app:config --watch -- ./server\n",
	.options = {[OPT_PREFIX] = {"prefix", 'p', "PREFIX", "keys that begin with PREFIX"},
		    [OPT_JSON] = {"json", 'J', "KEY", "members of KEY's JSON object"},
		    [OPT_UPCASE] = {"upcase", 'u', NULL, "names in capitals"},
		    [OPT_WATCH] = {"watch", 'w', NULL, "start it again when values change"},
		    [OPT_SIGNAL] = {"signal", 'k', "SIG", "... or send it SIG, HUP say"},
		    [OPT_GRACE] = {"grace", 'g', "TIME", "to end, before it is killed (10s)"}},
	.min = 1,
	.max = -1,
	.verbatim = true,
	.words = WORDS_FILES,
	.exec = run,
};
