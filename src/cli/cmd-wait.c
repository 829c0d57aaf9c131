/* wait: until a key exists, has a value, or changes.
 *
 * A notification says that a key has changed, but not reliably to what (after a patch it may carry
 * the patch). Each is therefore followed by a get, which decides. Values that the daemon has read
 * for the subscription are reliable. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "base/mem.h"
#include "show.h"
#include "visible.h"

enum { OPT_EQUALS, OPT_CHANGES, OPT_EXISTS, OPT_NO_RECONNECT };
enum { SUBSCRIBE_MS = 600000, LOOK_AGAIN_MS = 500 };

struct waiting {
	struct cli *c;
	struct hpkv_bytes key;
	bool known;  /* value is the last one that was read: */
	char *value; /* owned; NULL: there is no such key */
	size_t value_n;
	char *line; /* owned; the daemon's line with that value */
	size_t line_n;
	bool changed;      /* a change was reported */
	bool asking;       /* a get is in flight */
	bool stale;        /* the key has changed since the get was sent */
	long long look_at; /* when to repeat a get that failed; -1: none did */
	bool met;
	bool warned; /* that a * is no glob here */
	int status;  /* the exit status when something failed */
};

static bool same(const struct waiting *w, struct hpkv_bytes value)
{
	if (!value.p || !w->value)
		return !value.p && !w->value;
	return value.n == w->value_n && memcmp(value.p, w->value, value.n) == 0;
}

static void keep(struct hpkv_bytes bytes, char **p, size_t *n)
{
	free(*p);
	*p = bytes.p ? mem_strndup(bytes.p, bytes.n) : NULL;
	*n = bytes.n;
}

/* Takes a reliable value of the key. p NULL: there is no such key. */
static void learn(struct waiting *w, struct hpkv_bytes value, struct hpkv_bytes line)
{
	const char *wanted = w->c->opt[OPT_EQUALS];

	if (w->met) /* later values do not undo that */
		return;
	if (w->known && !same(w, value))
		w->changed = true;
	w->known = true;
	keep(value, &w->value, &w->value_n);
	keep(line, &w->line, &w->line_n);
	if (wanted)
		w->met = value.p && value.n == strlen(wanted) &&
			 memcmp(value.p, wanted, value.n) == 0;
	else if (w->c->opt[OPT_CHANGES])
		w->met = w->changed;
	else
		w->met = value.p != NULL;
}

static void ask(struct waiting *w);

static void on_value(void *arg, const struct hpkv_answer *answer)
{
	struct waiting *w = arg;

	if (answer->result == HPKV_CANCELLED) /* the command has ended, and w with it */
		return;
	w->asking = false;
	if (w->met)
		return;
	if (w->stale) {
		ask(w);
	} else if (answer->result == HPKV_OK || answer->result == HPKV_NOT_FOUND) {
		learn(w, answer->result ? (struct hpkv_bytes){0} : answer->value, answer->line);
	} else if (answer->result == HPKV_REFUSED) {
		w->status = cli_fail("wait", w->key, answer);
	} else {
		w->look_at = cli_now_ms() + LOOK_AGAIN_MS;
	}
}

static void ask(struct waiting *w)
{
	struct hpkv_request q = {.op = HPKV_GET, .key = w->key};

	w->stale = w->asking;
	w->look_at = -1;
	if (w->asking)
		return;
	/* Without a daemon the get fails. The value comes with the subscription once the daemon is
	 * back. */
	w->asking = hpkv_send(w->c->hpkv, &q, on_value, w) == HPKV_OK;
}

static void on_event(void *arg, const struct hpkv_event *e)
{
	struct waiting *w = arg;

	if (e->type == HPKV_EVENT_GAP) {
		ask(w);
	} else if (e->type == HPKV_EVENT_LOST && w->c->opt[OPT_NO_RECONNECT]) {
		cli_say("wait %s: %s", visible_name(w->key), e->text);
		w->status = CLI_NO_DAEMON;
	} else if (e->type == HPKV_EVENT_DROPPED) {
		cli_say("wait %s: %s", visible_name(w->key), e->text);
		w->status = CLI_REFUSED;
	} else if (e->type == HPKV_EVENT_CHANGE && e->flags) {
		learn(w, e->value, e->line);
	} else if (e->type == HPKV_EVENT_CHANGE) {
		w->changed = true;
		if (e->value.p)
			ask(w);
		else
			learn(w, e->value, e->line);
	}
}

/* Subscribes. Returns 0 once the subscription is live, however long the service is away. */
static int subscribe(struct waiting *w, long long until)
{
	struct hpkv_request q = {.op = HPKV_SUBSCRIBE, .keys = &w->key, .n_keys = 1, .initial = 1};
	const struct hpkv_answer *answer;

	for (;;) {
		long long left = cli_left_ms(until);
		q.timeout_ms = left < 0 || left > SUBSCRIBE_MS ? SUBSCRIBE_MS : (int)left;
		if (q.timeout_ms < 1)
			q.timeout_ms = 1;
		int result = hpkv_call(w->c->hpkv, &q, &answer);
		if (result == HPKV_OK)
			return CLI_DONE;
		if (result != HPKV_UNAVAILABLE || cli_left_ms(until) == 0)
			return cli_answer(w->c, "wait", w->key, answer);
		left = cli_left_ms(until);
		hpkv_wait(w->c->hpkv, left < 0 || left > LOOK_AGAIN_MS ? LOOK_AGAIN_MS : (int)left);
	}
}

/* A user who meant a glob would wait for ever. */
static void warn(struct waiting *w)
{
	if (w->warned || !w->known || w->value || !memchr(w->key.p, '*', w->key.n))
		return;
	w->warned = true;
	cli_say("wait %s: no such key yet; a * stands for itself here (hpkv watch 'GLOB' reports "
		"all keys that match)",
		visible_name(w->key));
}

static int wait_until(struct waiting *w, long long until)
{
	while (!w->met && !w->status) {
		warn(w);
		long long left = cli_left_ms(until), look = cli_left_ms(w->look_at);
		if (left == 0) {
			cli_say("wait %s: the time is up", visible_name(w->key));
			return CLI_NOT_FOUND;
		}
		if (look == 0)
			ask(w);
		else if (look > 0 && (left < 0 || look < left))
			left = look;
		hpkv_wait(w->c->hpkv, left > SUBSCRIBE_MS ? SUBSCRIBE_MS : (int)left);
	}
	return w->status;
}

static int run(struct cli *c, int argc, char **argv)
{
	struct waiting w = {.c = c, .key = hpkv_str(argv[0]), .look_at = -1};
	long long until = c->timeout_ms > 0 ? cli_now_ms() + c->timeout_ms : -1;

	(void)argc;
	if ((c->opt[OPT_EQUALS] != NULL) + (c->opt[OPT_CHANGES] != NULL) +
		    (c->opt[OPT_EXISTS] != NULL) >
	    1)
		return cli_usage(c, "--equals, --changes and --exists exclude one another");
	hpkv_set_reconnect(c->hpkv, !c->opt[OPT_NO_RECONNECT]);
	hpkv_on_event(c->hpkv, on_event, &w);
	int status = subscribe(&w, until);
	if (!status)
		status = wait_until(&w, until);
	if (!status && c->json)
		show_line(c, (struct hpkv_bytes){w.line, w.line_n});
	else if (!status && w.value)
		show_value(c, (struct hpkv_bytes){w.value, w.value_n});
	free(w.value);
	free(w.line);
	return status;
}

const struct command cmd_wait = {
	.name = "wait",
	.args = "KEY",
	.summary = "wait until a key exists, changes or has a value",
	.help = "Waits until the key exists and prints its value. With --equals it waits until\n"
		"the key has that value, with --changes until the key is changed or deleted from\n"
		"now on. It survives restarts of hpkvd. When the time of --timeout is up, the\n"
		"exit status is 1.\n"
		"\n"
		"  hpkv wait job:7 --equals done --timeout 5m && echo finished\n",
	.options = {[OPT_EQUALS] = {"equals", 'e', "V", "wait until it has the value V"},
		    [OPT_CHANGES] = {"changes", 'c', NULL, "wait until it is changed or deleted"},
		    [OPT_EXISTS] = {"exists", 'x', NULL, "wait until it exists (the default)"},
		    [OPT_NO_RECONNECT] = {"no-reconnect", 0, NULL, "end with 4 when hpkvd ends"}},
	.min = 1,
	.max = 1,
	.words = WORDS_KEY,
	.exec = run,
};
