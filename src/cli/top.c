#include "top.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clock-text.h"
#include "field.h"
#include "visible.h"

/* The counters that are shown, by their names in the stats answer. A counter that the daemon does
 * not have is left out. */
static const struct {
	const char *label, *name;
} rows[] = {
	{"requests", "hpkvd_requests_total"},
	{"sent to the service", "hpkvd_requests_sent_total"},
	{"answered by the service", "hpkvd_requests_answered_total"},
	{"refused here", "hpkvd_requests_refused_total"},
	{"not sent in their time", "hpkvd_requests_unsent_total"},
	{"not answered in their time", "hpkvd_requests_timeout_total"},
	{"refused by its rate limit", "hpkvd_upstream_refused_total"},
	{"changes received", "hpkvd_upstream_notifications_total"},
	{"changes passed on", "hpkvd_lines_out_total"},
	{"changes skipped (slow readers)", "hpkvd_notifications_conflated_total"},
	{"bytes from clients", "hpkvd_client_bytes_in_total"},
	{"bytes to clients", "hpkvd_client_bytes_out_total"},
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(sizeof(rows) / sizeof(rows[0]) <= TOP_STATS_MAX, "room for each row");

static const char *const latencies[TOP_LATENCIES] = {
	[TOP_WAIT] = "hpkvd_request_wait_seconds",
	[TOP_SERVICE] = "hpkvd_request_service_seconds",
};

static double clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

__attribute__((format(printf, 3, 4))) static struct top_line *
add(struct top_page *page, enum show_colour colour, const char *format, ...)
{
	static struct top_line spare;
	struct top_line *line = page->n < TOP_LINES_MAX ? &page->lines[page->n++] : &spare;
	va_list args;

	*line = (struct top_line){.colour = colour};
	va_start(args, format);
	vsnprintf(line->text, sizeof(line->text), format, args);
	va_end(args);
	return line;
}

/* ---- samples ---- */

static void read_stats(struct span line, struct top_sample *s)
{
	char path[80];

	for (unsigned i = 0; i < ROWS; i++) {
		snprintf(path, sizeof(path), "stats.%s", rows[i].name);
		s->stats[i] = field_number(line, path, -1);
	}
	for (int i = 0; i < TOP_LATENCIES; i++) {
		snprintf(path, sizeof(path), "stats.%s_sum", latencies[i]);
		s->seconds[i] = field_number(line, path, 0);
		snprintf(path, sizeof(path), "stats.%s_count", latencies[i]);
		s->count[i] = field_number(line, path, 0);
	}
}

static void read_door(struct span client, struct top_client *c)
{
	struct json_value tcp;
	bool by_tcp = field_find(client, "tcp", &tcp) && tcp.type == JSON_TRUE;

	snprintf(c->door, sizeof(c->door), "%.10s%s", field_text(client, "door"),
		 by_tcp ? " tcp" : "");
}

static void read_clients(struct span line, struct top_sample *s)
{
	struct json_array_reader array;
	struct json_value top, one;

	s->n_clients = 0;
	if (!field_find(line, "top", &top) || top.type != JSON_ARRAY)
		return;
	json_array_begin(&array, &top);
	while (s->n_clients < TOP_CLIENTS_MAX && json_array_next(&array, &one) > 0) {
		struct top_client *c = &s->clients[s->n_clients++];
		*c = (struct top_client){
			.id = field_number(one.text, "id", 0),
			.pid = field_number(one.text, "pid", 0),
			.uid = field_number(one.text, "uid", 0),
			.requests = field_number(one.text, "requests", 0),
			.unanswered = field_number(one.text, "unanswered", 0),
			.subscriptions = field_number(one.text, "subscriptions", 0),
			.output = field_number(one.text, "outputBytes", 0),
		};
		read_door(one.text, c);
	}
}

/* ---- the page ---- */

static void add_head(struct top_page *page, struct span status)
{
	char up[CLOCK_TEXT_MAX], now[CLOCK_TEXT_MAX];
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	clock_text(now, (int64_t)t.tv_sec * 1000, 0);
	clock_duration(up, field_number(status, "uptimeMs", 0));
	add(page, SHOW_PLAIN, " hpkvd %s, process %.0f, running for %s   %.8s   q quits",
	    field_text(status, "version"), field_number(status, "pid", 0), up, now)
		->reverse = true;
}

static void add_upstream(struct top_page *page, struct span status)
{
	const char *state = field_text(status, "upstream.state");
	double token = field_number(status, "upstream.tokenExpiresInMs", -1);
	char since[CLOCK_TEXT_MAX], expires[CLOCK_TEXT_MAX];
	bool connected = strcmp(state, "connected") == 0;

	clock_duration(since, field_number(status, "upstream.sinceMs", 0));
	clock_duration(expires, token);
	add(page, connected ? SHOW_GOOD : SHOW_BAD, "upstream      %s for %s%s%s, %.0f reconnects",
	    state, since, token >= 0 ? ", token expires in " : "", token >= 0 ? expires : "",
	    field_number(status, "upstream.reconnects", 0));
	add(page, SHOW_DIM, "              %s%s%s", field_text(status, "upstream.url"),
	    connected || !*field_text(status, "upstream.lastError") ? "" : "  ",
	    connected ? "" : field_text(status, "upstream.lastError"));
}

/* The mean since the previous page, as text. */
static const char *mean(char text[CLOCK_TEXT_MAX], enum top_latency i,
			const struct top_sample *before, const struct top_sample *now)
{
	bool same = before->at_ms > 0 && before->pid == now->pid;
	double n = now->count[i] - (same ? before->count[i] : 0);
	double seconds = now->seconds[i] - (same ? before->seconds[i] : 0);

	if (n > 0)
		snprintf(text, CLOCK_TEXT_MAX, "%.1f ms", seconds * 1e3 / n);
	else
		snprintf(text, CLOCK_TEXT_MAX, "-");
	return text;
}

static void add_latency(struct top_page *page, const struct top_sample *before,
			const struct top_sample *now)
{
	char wait[CLOCK_TEXT_MAX], service[CLOCK_TEXT_MAX];

	add(page, SHOW_PLAIN,
	    "latency       waited here %s, at the service %s (means); ping %.2f ms",
	    mean(wait, TOP_WAIT, before, now), mean(service, TOP_SERVICE, before, now),
	    now->ping_ms);
}

/* The share of reads answered from memory since the previous page. */
static void add_cache(struct top_page *page, struct span status, const struct top_sample *before,
		      const struct top_sample *now)
{
	bool same = before->at_ms > 0 && before->pid == now->pid;
	double hits = now->cache_hits - (same ? before->cache_hits : 0),
	       misses = now->cache_misses - (same ? before->cache_misses : 0);
	char share[CLOCK_TEXT_MAX] = "-";

	if (now->cache_hits + now->cache_misses + field_number(status, "cache.saved", 0) == 0)
		return;
	if (hits + misses > 0)
		snprintf(share, sizeof(share), "%.1f %%", 100 * hits / (hits + misses));
	add(page, SHOW_PLAIN,
	    "cache         %s of reads from memory; %.0f entries; %.0f requests saved", share,
	    field_number(status, "cache.entries", 0), field_number(status, "cache.saved", 0));
}

static void add_queues(struct top_page *page, struct span status, const struct top_sample *before,
		       const struct top_sample *now)
{
	double wait = field_number(status, "upstream.waitMs", -1);
	double pace = field_number(status, "upstream.pace", 0);
	char text[CLOCK_TEXT_MAX] = "as long as the others", allowed[CLOCK_TEXT_MAX] = "";

	if (wait >= 0)
		clock_duration(text, wait);
	if (pace > 0)
		snprintf(allowed, sizeof(allowed), ", %.1f a second allowed", pace);
	add(page, SHOW_PLAIN,
	    "queues        %.0f of %.0f in flight, %.0f waiting; a new one waits %s%s",
	    field_number(status, "upstream.inFlight", 0),
	    field_number(status, "limits.maxInFlight", 0),
	    field_number(status, "upstream.queued", 0), text, allowed);
	add(page, SHOW_PLAIN,
	    "subscribed    %.0f keys, %.0f patterns; %.0f subscriptions, %.0f not live",
	    field_number(status, "subscriptions.keys", 0),
	    field_number(status, "subscriptions.patterns", 0),
	    field_number(status, "subscriptions.total", 0),
	    field_number(status, "subscriptions.waiting", 0));
	add_cache(page, status, before, now);
	add(page, SHOW_PLAIN, "clients       %.0f of %.0f", field_number(status, "clients", 0),
	    field_number(status, "limits.maxClients", 0));
}

static void add_rates(struct top_page *page, const struct top_sample *before,
		      const struct top_sample *now)
{
	double seconds = (now->at_ms - before->at_ms) / 1000;
	bool comparable = before->at_ms > 0 && before->pid == now->pid && seconds > 0;

	add(page, SHOW_PLAIN, "%-32s %14s %18s", "", "a second", "in all")->reverse = true;
	for (unsigned i = 0; i < ROWS; i++) {
		if (now->stats[i] < 0)
			continue;
		if (comparable)
			add(page, SHOW_PLAIN, "%-32s %14.1f %18.0f", rows[i].label,
			    (now->stats[i] - before->stats[i]) / seconds, now->stats[i]);
		else
			add(page, SHOW_PLAIN, "%-32s %14s %18.0f", rows[i].label, "-",
			    now->stats[i]);
	}
}

/* Requests per second; -1 if the client was not among the busiest before. */
static double rate_of(const struct top_client *c, const struct top_sample *before, double seconds)
{
	for (unsigned i = 0; i < before->n_clients; i++) {
		if (before->clients[i].id == c->id)
			return (c->requests - before->clients[i].requests) / seconds;
	}
	return -1;
}

static void add_clients(struct top_page *page, const struct top_sample *before,
			const struct top_sample *now)
{
	double seconds = (now->at_ms - before->at_ms) / 1000;
	bool comparable = before->at_ms > 0 && before->pid == now->pid && seconds > 0;
	char rate[32];

	if (!now->n_clients)
		return;
	add(page, SHOW_PLAIN, "%8s %8s %8s %11s %12s %11s %5s %9s  %s", "client", "process", "user",
	    "requests/s", "requests", "unanswered", "subs", "unread", "door")
		->reverse = true;
	for (unsigned i = 0; i < now->n_clients; i++) {
		const struct top_client *c = &now->clients[i];
		double r = comparable ? rate_of(c, before, seconds) : -1;
		snprintf(rate, sizeof(rate), r < 0 ? "-" : "%.1f", r);
		add(page, SHOW_PLAIN, "%8.0f %8.0f %8.0f %11s %12.0f %11.0f %5.0f %9.0f  %s", c->id,
		    c->pid, c->uid, rate, c->requests, c->unanswered, c->subscriptions, c->output,
		    c->door);
	}
}

/* Sends one request. false: it failed, and the page says why. */
static bool ask(struct cli *c, const struct hpkv_request *q, const struct hpkv_answer **answer,
		struct top_page *page)
{
	if (hpkv_call(c->hpkv, q, answer) == HPKV_OK)
		return true;
	add(page, SHOW_BAD, "%s", visible_sentence(hpkv_str((*answer)->error)));
	return false;
}

void top_ask(struct cli *c, struct top_sample *sample, struct top_page *page)
{
	static const char status_json[] = "{\"op\":\"status\",\"top\":true}";
	struct hpkv_request ping_q = {.op = HPKV_PING}, stats_q = {.op = HPKV_STATS};
	struct hpkv_request status_q = {.op = HPKV_JSON, .value = hpkv_str(status_json)};
	struct top_sample before = *sample, now = {0};
	const struct hpkv_answer *answer;
	double start = clock_ms();

	page->n = 0;
	if (!ask(c, &ping_q, &answer, page))
		return;
	now.at_ms = clock_ms();
	now.ping_ms = now.at_ms - start;
	if (!ask(c, &stats_q, &answer, page))
		return;
	read_stats((struct span){answer->line.p, answer->line.n}, &now);
	if (!ask(c, &status_q, &answer, page))
		return;
	struct span status = {answer->line.p, answer->line.n};
	if (c->json)
		show_line(c, answer->line);
	now.pid = field_number(status, "pid", 0);
	now.cache_hits = field_number(status, "cache.hits", 0);
	now.cache_misses = field_number(status, "cache.misses", 0);
	read_clients(status, &now);
	add_head(page, status);
	add_upstream(page, status);
	add_latency(page, &before, &now);
	add_queues(page, status, &before, &now);
	add_rates(page, &before, &now);
	add_clients(page, &before, &now);
	*sample = now;
}
