/* status, stats, ping and ready: the state of the daemon. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock-text.h"
#include "commands.h"
#include "field.h"
#include "base/mem.h"
#include "show.h"
#include "visible.h"

enum { LABEL_COLUMN = 15, READY_MIN_MS = 20, READY_MAX_MS = 500, ANSWER_MS = 1000 };

static struct span span_of(struct hpkv_bytes bytes)
{
	return (struct span){bytes.p, bytes.n};
}

/* ---- status ---- */

static void label(const struct cli *c, const char *name)
{
	show_paint(c, SHOW_DIM);
	printf("%-*s", LABEL_COLUMN, name);
	show_paint(c, SHOW_PLAIN);
}

static void show_upstream(const struct cli *c, struct span line)
{
	const char *state = field_text(line, "upstream.state");
	double token = field_number(line, "upstream.tokenExpiresInMs", -1);
	char since[CLOCK_TEXT_MAX], expires[CLOCK_TEXT_MAX];

	label(c, "upstream");
	show_paint(c, strcmp(state, "connected") == 0 ? SHOW_GOOD : SHOW_BAD);
	fputs(state, stdout);
	show_paint(c, SHOW_PLAIN);
	clock_duration(since, field_number(line, "upstream.sinceMs", 0));
	clock_duration(expires, token);
	printf(" for %s", since);
	if (token >= 0)
		printf(", with a token that expires in %s\n", expires);
	else
		printf(", with the API key\n");
	label(c, "");
	printf("%s\n", field_text(line, "upstream.url"));
	label(c, "");
	printf("%.0f reconnects", field_number(line, "upstream.reconnects", 0));
	if (*field_text(line, "upstream.lastError"))
		printf("; the last error: %s", field_text(line, "upstream.lastError"));
	putchar('\n');
	if (*field_text(line, "upstream.tokenError")) {
		label(c, "");
		show_paint(c, SHOW_BAD);
		printf("no new token: %s\n", field_text(line, "upstream.tokenError"));
		show_paint(c, SHOW_PLAIN);
	}
}

static void show_requests(const struct cli *c, struct span line)
{
	double pace = field_number(line, "upstream.pace", 0),
	       wait = field_number(line, "upstream.waitMs", 0);
	char text[CLOCK_TEXT_MAX];

	label(c, "requests");
	printf("%.0f in flight, %.0f waiting", field_number(line, "upstream.inFlight", 0),
	       field_number(line, "upstream.queued", 0));
	if (pace > 0)
		printf(", %.1f a second allowed", pace);
	if (wait > 0) {
		clock_duration(text, wait);
		printf(", a new one would wait %s", text);
	}
	putchar('\n');
}

static void show_subscriptions(const struct cli *c, struct span line)
{
	label(c, "subscriptions");
	printf("%.0f, to %.0f keys and %.0f patterns; %.0f not live yet\n",
	       field_number(line, "subscriptions.total", 0),
	       field_number(line, "subscriptions.keys", 0),
	       field_number(line, "subscriptions.patterns", 0),
	       field_number(line, "subscriptions.waiting", 0));
	if (field_number(line, "subscriptions.leftOut", 0) > 0) {
		label(c, "");
		show_paint(c, SHOW_BAD);
		printf("%.0f keys and patterns do not fit in the token: their changes are not "
		       "received\n",
		       field_number(line, "subscriptions.leftOut", 0));
		show_paint(c, SHOW_PLAIN);
	}
}

static void show_mirrors(const struct cli *c, struct span line)
{
	struct json_array_reader reader;
	struct json_value mirrors, mirror;

	if (!field_find(line, "cache.mirrors", &mirrors) || mirrors.type != JSON_ARRAY)
		return;
	json_array_begin(&reader, &mirrors);
	while (json_array_next(&reader, &mirror) > 0) {
		label(c, "");
		printf("mirror %s: %s, ", field_text(mirror.text, "pattern"),
		       field_text(mirror.text, "state"));
		printf("%.0f keys\n", field_number(mirror.text, "keys", 0));
	}
}

/* Nothing, if nothing was ever remembered or saved. */
static void show_cache(const struct cli *c, struct span line)
{
	double hits = field_number(line, "cache.hits", 0),
	       misses = field_number(line, "cache.misses", 0),
	       saved = field_number(line, "cache.saved", 0);
	struct json_value live;

	if (hits + misses + saved == 0 &&
	    !(field_find(line, "cache.live", &live) && live.type == JSON_TRUE))
		return;
	label(c, "cache");
	printf("%.0f entries, %.1f MiB", field_number(line, "cache.entries", 0),
	       field_number(line, "cache.bytes", 0) / 1048576);
	if (hits + misses > 0)
		printf("; %.1f %% of reads from memory", 100 * hits / (hits + misses));
	printf("; %.0f requests saved\n", saved);
	show_mirrors(c, line);
}

static int run_status(struct cli *c, int argc, char **argv)
{
	const struct hpkv_answer *answer;
	int status = cli_call(c, "status", &(struct hpkv_request){.op = HPKV_STATUS}, &answer);
	char up[CLOCK_TEXT_MAX];

	(void)argc;
	(void)argv;
	if (status || c->json)
		return status;
	struct span line = span_of(answer->line);
	show_upstream(c, line);
	show_requests(c, line);
	show_subscriptions(c, line);
	show_cache(c, line);
	label(c, "clients");
	printf("%.0f of at most %.0f\n", field_number(line, "clients", 0),
	       field_number(line, "limits.maxClients", 0));
	clock_duration(up, field_number(line, "uptimeMs", 0));
	label(c, "daemon");
	printf("hpkvd %s, process %.0f, running for %s\n", field_text(line, "version"),
	       field_number(line, "pid", 0), up);
	label(c, "socket");
	printf("%s\n", visible_sentence(hpkv_str(hpkv_socket(c->hpkv))));
	return CLI_DONE;
}

/* ---- stats ---- */

/* A counter's name may hold quoted labels, whose quotes JSON escapes. */
static void show_counter(const struct cli *c, const struct json_member *m, size_t column)
{
	char *name = mem_alloc(m->name.text.n);
	size_t n = json_string_decode(&m->name, name);

	show_record(c, (struct hpkv_bytes){name, n},
		    (struct hpkv_bytes){m->value.text.p, m->value.text.n}, column);
	free(name);
}

static int run_stats(struct cli *c, int argc, char **argv)
{
	const struct hpkv_answer *answer;
	int status = cli_call(c, "stats", &(struct hpkv_request){.op = HPKV_STATS}, &answer);
	struct json_object_reader reader;
	struct json_value stats;
	struct json_member m;
	size_t column = 0;

	(void)argc;
	(void)argv;
	if (status || c->json || !field_find(span_of(answer->line), "stats", &stats))
		return status;
	json_object_begin(&reader, stats.text);
	while (json_object_next(&reader, &m) > 0)
		column = m.name.text.n > column ? m.name.text.n : column;
	json_object_begin(&reader, stats.text);
	while (json_object_next(&reader, &m) > 0)
		show_counter(c, &m, column);
	return CLI_DONE;
}

/* ---- ping ---- */

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int run_ping(struct cli *c, int argc, char **argv)
{
	double start = now_us();
	int status = cli_call(c, "ping", &(struct hpkv_request){.op = HPKV_PING}, NULL);

	(void)argc;
	(void)argv;
	if (!status && !c->json)
		printf("pong after %.2f ms\n", (now_us() - start) / 1000);
	return status;
}

/* ---- ready ---- */

enum { OPT_TOKENS };

static const char probe_key[] = "hpkv-ready"; /* the default KEY */

struct readiness {
	struct cli *c;
	long long until;       /* -1: no limit */
	struct hpkv_bytes key; /* p NULL: none was named */
};

/* The timeout of one request: the time left, but at least ANSWER_MS. */
static int time_for(const struct readiness *r)
{
	long long left = cli_left_ms(r->until);

	if (left < 0)
		return 0; /* the handle's default */
	return left < ANSWER_MS ? ANSWER_MS : left > INT_MAX ? INT_MAX : (int)left;
}

static bool is_over(const struct readiness *r)
{
	return cli_left_ms(r->until) == 0;
}

/* Subscribes for a moment: only that shows whether the service issues a token and accepts it. -1:
 * not yet. */
static int try_tokens(const struct readiness *r)
{
	struct hpkv_bytes key = r->key.p ? r->key : hpkv_str(probe_key);
	struct hpkv_request q = {
		.op = HPKV_SUBSCRIBE, .keys = &key, .n_keys = 1, .timeout_ms = time_for(r)};
	const struct hpkv_answer *answer;
	int result = hpkv_call(r->c->hpkv, &q, &answer);

	if (result == HPKV_OK) {
		q.op = HPKV_UNSUBSCRIBE;
		hpkv_call(r->c->hpkv, &q, NULL);
		return CLI_DONE;
	}
	if (result == HPKV_REFUSED && strcmp(answer->reason, "forbidden") == 0) {
		cli_say("ready: the access rules forbid to watch %s, which --tokens subscribes to; "
			"name a key that may be watched: hpkv ready --tokens KEY",
			visible_name(key));
		return CLI_REFUSED;
	}
	if (result == HPKV_UNAVAILABLE || (result == HPKV_NO_DAEMON && r->c->timeout_ms > 0)) {
		if (!is_over(r))
			return -1;
		cli_say("ready: no subscription within the time: %s", answer->error);
		return cli_exit_of((enum hpkv_result)result);
	}
	return cli_fail("ready", key, answer);
}

/* Called when the daemon is connected. line: the status answer. */
static int look_at_tokens(const struct readiness *r, struct span line)
{
	bool has_token = strcmp(field_text(line, "upstream.auth"), "token") == 0 &&
			 !*field_text(line, "upstream.tokenError");

	if (!r->c->opt[OPT_TOKENS] || (has_token && !r->key.p))
		return CLI_DONE;
	return try_tokens(r);
}

static int when_connected(const struct readiness *r, const struct hpkv_answer *answer)
{
	struct cli *c = r->c;
	char *line = mem_strndup(answer->line.p, answer->line.n);
	size_t n = answer->line.n;
	int status = look_at_tokens(r, (struct span){line, n});

	if (!status && c->json)
		show_line(c, (struct hpkv_bytes){line, n});
	free(line);
	return status;
}

/* -1: not yet. With --timeout the daemon itself may start later. */
static int is_ready(const struct readiness *r)
{
	struct cli *c = r->c;
	struct hpkv_request q = {.op = HPKV_STATUS, .timeout_ms = time_for(r)};
	bool last = is_over(r);
	const struct hpkv_answer *answer;

	int result = hpkv_call(c->hpkv, &q, &answer);
	if (result == HPKV_NO_DAEMON && c->timeout_ms > 0 && !last)
		return -1;
	if (result)
		return cli_fail("ready", (struct hpkv_bytes){0}, answer);
	const char *state = field_text(span_of(answer->line), "upstream.state");
	const char *error = field_text(span_of(answer->line), "upstream.lastError");
	if (strcmp(state, "connected") == 0)
		return when_connected(r, answer);
	if (strcmp(state, "unauthorized") == 0) {
		cli_say("ready: the service refuses the daemon's API key: %s", error);
		return CLI_REFUSED;
	}
	if (!last)
		return -1;
	cli_say("ready: not connected to the service within the time: %s%s%s", state,
		*error ? ", " : "", error);
	return CLI_UNAVAILABLE;
}

static int run_ready(struct cli *c, int argc, char **argv)
{
	struct readiness r = {.c = c,
			      .until = c->timeout_ms > 0 ? cli_now_ms() + c->timeout_ms : -1,
			      .key = hpkv_str(argc ? argv[0] : NULL)};
	int pause = READY_MIN_MS, status;

	if (argc && !c->opt[OPT_TOKENS])
		return cli_usage(c, "KEY needs --tokens");
	while ((status = is_ready(&r)) < 0) {
		long long left = cli_left_ms(r.until);
		usleep((useconds_t)(left < 0 || left > pause ? pause : left) * 1000);
		pause = pause * 2 < READY_MAX_MS ? pause * 2 : READY_MAX_MS;
	}
	return status;
}

/* ---- the rows ---- */

const struct command cmd_status = {
	.name = "status",
	.args = "",
	.summary = "show the state of the daemon and its connection",
	.help = "Shows the connection to the service, requests in flight and waiting,\n"
		"subscriptions and clients. --json prints all members.\n",
	.exec = run_status,
};

const struct command cmd_stats = {
	.name = "stats",
	.args = "",
	.summary = "print the daemon's counters since its start",
	.help = "Prints the name and the number of each counter; in a pipe NAME<TAB>NUMBER.\n",
	.exec = run_stats,
};

const struct command cmd_ping = {
	.name = "ping",
	.args = "",
	.summary = "measure how fast the daemon answers",
	.help = "Prints how long the daemon took to answer. The service is not asked.\n",
	.exec = run_ping,
};

const struct command cmd_ready = {
	.name = "ready",
	.args = "[KEY]",
	.summary = "wait until the daemon is connected to the service",
	.help = "Returns at once if it is connected. Otherwise it waits, for ever unless there is\n"
		"a --timeout. With one it also waits for the daemon itself to start. Exit status\n"
		"4: no daemon; 5: not connected in time; 3: the service refuses the API key.\n"
		"With --tokens it also waits until subscriptions work: the service has to issue a\n"
		"token. It subscribes to KEY (hpkv-ready) for a moment if the connection has no\n"
		"token yet, or if KEY is given. The access rules must allow to read KEY (else\n"
		"exit status 3). 5: no subscription in time.\n"
		"\n"
		"  hpkv ready --timeout 30s && start-my-app\n"
		"  hpkv ready --tokens --timeout 30s && start-my-watcher\n",
	.options = {[OPT_TOKENS] = {"tokens", 0, NULL, "wait until subscriptions work, too"}},
	.max = 1,
	.words = WORDS_KEY,
	.exec = run_ready,
};
