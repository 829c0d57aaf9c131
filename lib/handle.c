#include "handle.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "encode.h"

enum {
	TURN_BYTES = 1 << 20, /* read at most in one step: other work of the program has its turn */
	GRACE_MS = 2000, /* the daemon's own error says more, so its answer may be a bit late */
	AWAY_MS = 100,   /* a longer absence does not count against deadlines */
	BACKOFF_MIN_MS = 20,
	BACKOFF_MAX_MS = 2000,
	STABLE_MS = 1000,                /* a connection that lasted longer resets the backoff */
	RESUBSCRIBE_MS = 1000,           /* pause after a failed resubscribe */
	RESUBSCRIBE_TIMEOUT_MS = 600000, /* the service may be away for long */
	CHUNK_TOPICS = 128,              /* most topics of one resubscribe … */
	CHUNK_BYTES = 16384,             /* … and bytes of their names */
};

#define NEVER INT64_MAX

static const char system_socket[] = "/run/hpkvd/hpkvd.sock";

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool is_up(const struct hpkv *h)
{
	return h->channel.fd >= 0;
}

/* ---- callbacks ---- */

static void tell_event(struct hpkv *h, const struct hpkv_event *event)
{
	if (!h->event || h->freed)
		return;
	h->depth++;
	h->called++;
	h->event(h->event_arg, event);
	h->depth--;
}

static void tell_own_event(struct hpkv *h, enum hpkv_event_type type, const char *text)
{
	tell_event(h, &(struct hpkv_event){.type = type, .text = text, .line = {"", 0}});
}

/* Reports that the connection is lost, once. line: the daemon's last one, or empty. Without a
 * reconnect it is the end of all subscriptions. */
static void tell_lost(struct hpkv *h, struct hpkv_bytes line)
{
	char text[HANDLE_ERROR_MAX];

	if (!h->topics.n_live || h->told_lost)
		return;
	h->told_lost = h->reconnect;
	h->lost_at = h->live_at;
	if (!h->reconnect) {
		topics_clear(&h->topics);
		h->told_upstream_lost = false;
	}
	snprintf(text, sizeof(text), "the connection to hpkvd is lost: %s", h->why);
	tell_event(h, &(struct hpkv_event){.type = HPKV_EVENT_LOST,
					   .timestamp = wall_ms(),
					   .text = text,
					   .line = line});
}

/* ---- the table of requests ---- */

static void unlink_pending(struct hpkv *h, struct pending *p)
{
	struct pending **at = &h->buckets[p->id % HANDLE_BUCKETS];

	while (*at != p)
		at = &(*at)->chain;
	*at = p->chain;
	TAILQ_REMOVE(&h->pendings, p, link);
	h->pending_bytes -= p->n;
}

static struct pending *find_pending(struct hpkv *h, uint64_t id)
{
	struct pending *p = h->buckets[id % HANDLE_BUCKETS];

	while (p && p->id != id)
		p = p->chain;
	return p;
}

static void link_pending(struct hpkv *h, struct pending *p)
{
	struct pending **bucket = &h->buckets[p->id % HANDLE_BUCKETS];

	p->chain = *bucket;
	*bucket = p;
	p->away = h->away;
	TAILQ_INSERT_TAIL(&h->pendings, p, link);
	h->pending_bytes += p->n;
	if (p->deadline < h->check_at)
		h->check_at = p->deadline;
}

static struct span line_of(const struct pending *p)
{
	return (struct span){p->text, p->n - 1};
}

static struct span user_id_of(const struct pending *p)
{
	return (struct span){p->text + p->n, p->id_n};
}

static struct decode_store *store_of(struct hpkv *h, const struct pending *p)
{
	return p->finished ? &h->last : &h->scratch;
}

/* Tells a request's outcome, which is in its store. The only place that does. The request is in no
 * table any more. */
static void settle(struct hpkv *h, struct pending *p)
{
	struct decode_store *store = store_of(h, p);
	bool subscribes = p->op == HPKV_SUBSCRIBE && !p->n_topics;

	if (subscribes)
		topics_answered(&h->topics, line_of(p), p->id, store->answer.result == HPKV_OK);
	if (p->finished)
		*p->finished = true;
	if (p->done) {
		h->depth++;
		h->called++;
		p->done(p->arg, &store->answer);
		h->depth--;
	}
	free(p);
}

static void settle_failed(struct hpkv *h, struct pending *p, enum hpkv_result result,
			  const char *error)
{
	decode_failure(store_of(h, p), result, error);
	settle(h, p);
}

/* ---- sending ---- */

/* A request that has waited: its time began before the daemon gets it. The rest of it has no more
 * digits than the whole; spaces follow. */
static void shorten_limit(struct hpkv *h, struct pending *p)
{
	char digits[32];
	int64_t left = p->deadline + h->away - p->away - now_ms();
	int n = snprintf(digits, sizeof(digits), "%lld", (long long)(left > 1 ? left : 1));

	if (!p->limit_n || (size_t)n > p->limit_n)
		return;
	memset(p->text + p->limit_at, ' ', p->limit_n);
	memcpy(p->text + p->limit_at, digits, (size_t)n);
}

/* Queues a request on the connection; 0 or -errno. */
static int hand_over(struct hpkv *h, struct pending *p)
{
	if (p->delayed)
		shorten_limit(h, p);
	int error = channel_queue(&h->channel, (struct span){p->text, p->n});

	if (error)
		return error;
	p->sent = true;
	/* End of file may replace the last LF, so the LF does not count. */
	p->complete = h->channel.queued - 1;
	return 0;
}

/* Queues all waiting requests, which are the last in the list. Requests for which the connection
 * has no room are queued in a later step. */
static void hand_over_all(struct hpkv *h)
{
	struct pending *p = TAILQ_LAST(&h->pendings, pending_list);

	if (h->ending)
		return;
	while (p && !p->sent && TAILQ_PREV(p, pending_list, link) &&
	       !TAILQ_PREV(p, pending_list, link)->sent)
		p = TAILQ_PREV(p, pending_list, link);
	for (; p && (p->sent || hand_over(h, p) == 0); p = TAILQ_NEXT(p, link))
		;
	channel_flush(&h->channel);
}

static struct pending *make_pending(struct hpkv *h, const struct encoded *e)
{
	struct pending *p = calloc(1, sizeof(*p) + e->line.n + e->user_id.n);

	if (!p)
		return NULL;
	p->id = h->last_id;
	p->op = e->op;
	p->repeatable = e->repeatable;
	p->remote = e->remote;
	p->deadline = now_ms() + e->timeout_ms;
	p->limit_at = e->limit_at;
	p->limit_n = e->limit_n;
	p->n = e->line.n;
	p->id_n = e->user_id.n;
	memcpy(p->text, e->line.p, p->n);
	if (p->id_n)
		memcpy(p->text + p->n, e->user_id.p, p->id_n);
	return p;
}

/* ---- subscribing again ---- */

/* Makes one of the library's own subscribes, for topics from *at on; moves *at behind them. */
static int resubscribe_chunk(struct hpkv *h, struct topic **at, unsigned most)
{
	struct hpkv_bytes keys[CHUNK_TOPICS], patterns[CHUNK_TOPICS];
	struct hpkv_request q = {.op = HPKV_SUBSCRIBE,
				 .keys = keys,
				 .patterns = patterns,
				 .initial = 1,
				 .timeout_ms = RESUBSCRIBE_TIMEOUT_MS};
	char fault[ENCODE_FAULT_MAX];
	struct encoded e;
	size_t bytes = 0;

	for (; *at && q.n_keys + q.n_patterns < most && bytes < CHUNK_BYTES;
	     *at = TAILQ_NEXT(*at, link)) {
		struct hpkv_bytes name = {(*at)->name, (*at)->n};
		if (!(*at)->live)
			continue; /* its subscribe has not been answered, and is sent again itself
				   */
		if ((*at)->pattern)
			patterns[q.n_patterns++] = name;
		else
			keys[q.n_keys++] = name;
		bytes += name.n;
	}
	if (!q.n_keys && !q.n_patterns)
		return 0;
	int result = encode_request(&q, ++h->last_id, h->timeout_ms, &e, fault);
	struct pending *p = result ? NULL : make_pending(h, &e);
	if (!result)
		text_free(&e.line);
	if (!p)
		return -ENOMEM;
	p->n_topics = (unsigned)(q.n_keys + q.n_patterns);
	p->deadline = NEVER;
	p->limit_n = 0;
	link_pending(h, p);
	h->resubscribing++;
	return 0;
}

static void drop_own(struct hpkv *h)
{
	struct pending *next;

	for (struct pending *p = TAILQ_FIRST(&h->pendings); p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (p->n_topics) {
			unlink_pending(h, p);
			free(p);
		}
	}
	h->resubscribing = 0;
}

static void resubscribe(struct hpkv *h, unsigned chunk)
{
	struct topic *at = TAILQ_FIRST(&h->topics.all);

	h->resubscribe_at = NEVER;
	while (at) {
		if (resubscribe_chunk(h, &at, chunk) < 0) {
			h->resubscribe_at = now_ms() + RESUBSCRIBE_MS;
			return;
		}
	}
}

static void tell_back(struct hpkv *h)
{
	if (!h->told_lost || h->resubscribing || h->resubscribe_at != NEVER)
		return;
	h->told_lost = false;
	/* Subscriptions are live only with a connection to the service. */
	if (h->told_upstream_lost) {
		h->told_upstream_lost = false;
		tell_own_event(h, HPKV_EVENT_UPSTREAM_BACK, "");
	}
	tell_event(h, &(struct hpkv_event){.type = HPKV_EVENT_BACK,
					   .timestamp = wall_ms(),
					   .text = "",
					   .line = {"", 0}});
}

/* Drops the only topic of a refused subscribe. */
static void drop_topic(struct hpkv *h, const struct pending *p, const char *why)
{
	struct topic *topic;
	struct topics probe = {.all = TAILQ_HEAD_INITIALIZER(probe.all)};

	if (topics_sent(&probe, line_of(p), 0, true) == 0 && (topic = TAILQ_FIRST(&probe.all))) {
		struct hpkv_event event = {
			.type = HPKV_EVENT_DROPPED, .text = why, .line = {"", 0}};
		struct hpkv_bytes name = {topic->name, topic->n};
		*(topic->pattern ? &event.pattern : &event.key) = name;
		topics_ended(&h->topics, topic->pattern, topic_name(topic));
		tell_event(h, &event);
	}
	topics_clear(&probe);
}

/* Reports a gap for each pattern of a subscribe that was made again: it is live from now on. */
static void tell_gaps(struct hpkv *h, const struct pending *p)
{
	struct topics probe = {.all = TAILQ_HEAD_INITIALIZER(probe.all)};
	struct topic *topic;

	if (topics_sent(&probe, line_of(p), 0, true) < 0)
		tell_own_event(h, HPKV_EVENT_GAP, "no memory for the patterns");
	TAILQ_FOREACH (topic, &probe.all, link) {
		struct hpkv_event gap = {.type = HPKV_EVENT_GAP,
					 .since = h->lost_at,
					 .until = wall_ms(),
					 .text = "",
					 .line = {"", 0}};
		gap.pattern = (struct hpkv_bytes){topic->name, topic->n};
		if (topic->pattern)
			tell_event(h, &gap);
	}
	topics_clear(&probe);
}

/* Handles the answer to one of the library's own subscribes, which is in no table any more. */
static void resubscribed(struct hpkv *h, struct pending *p, const struct hpkv_answer *answer)
{
	h->resubscribing--;
	if (answer->result == HPKV_REFUSED && p->n_topics == 1) {
		drop_topic(h, p, answer->error);
	} else if (answer->result == HPKV_REFUSED) {
		/* One topic was refused: subscribe to each by itself. */
		drop_own(h);
		resubscribe(h, 1);
		hand_over_all(h);
	} else if (answer->result) {
		int wait = answer->retry_after_ms > RESUBSCRIBE_MS ? answer->retry_after_ms
								   : RESUBSCRIBE_MS;
		h->resubscribe_at = now_ms() + wait;
	} else {
		tell_gaps(h, p);
	}
	free(p);
	tell_back(h);
}

/* ---- the connection ---- */

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static char *find_socket(const char *given)
{
	const char *named = secure_getenv("HPKVD_SOCKET");
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
	char *own = NULL;

	if (given || (named && *named))
		return strdup(given ? given : named);
	if (runtime && *runtime && asprintf(&own, "%s/hpkvd.sock", runtime) < 0)
		return NULL;
	if (own && exists(own))
		return own;
	free(own);
	return strdup(system_socket);
}

bool handle_find_socket(struct hpkv *h)
{
	char *path = find_socket(h->given);

	if (!path)
		return false;
	free(h->path);
	h->path = path;
	return true;
}

/* Is a connection needed? */
static bool is_needed(const struct hpkv *h)
{
	return h->topics.n_live || !TAILQ_EMPTY(&h->pendings);
}

/* Plans the next attempt after a pause that doubles. A random half of it is left out, so that not
 * all clients of a restarted daemon come at once. */
static void plan_retry(struct hpkv *h)
{
	unsigned char dice = 128;

	if (!is_needed(h)) {
		h->retry_at = NEVER;
		return;
	}
	h->retry_at = now_ms();
	if (h->backoff_ms && getrandom(&dice, 1, GRND_NONBLOCK) <= 1)
		h->retry_at += h->backoff_ms / 2 + h->backoff_ms * dice / 512;
}

static void back_off(struct hpkv *h)
{
	h->backoff_ms = h->backoff_ms ? h->backoff_ms * 2 : BACKOFF_MIN_MS;
	if (h->backoff_ms > BACKOFF_MAX_MS)
		h->backoff_ms = BACKOFF_MAX_MS;
}

/* Connects. 0, or -errno with why set. */
static int connect_now(struct hpkv *h)
{
	int error = handle_find_socket(h) ? channel_open(&h->channel, h->path) : -ENOMEM;

	if (error) {
		snprintf(h->why, sizeof(h->why), "%s",
			 error == -ENOMEM ? "no memory" : h->channel.why);
		/* An attempt that a new request makes before its time delays no other. */
		if (h->retry_at == NEVER || h->retry_at <= now_ms()) {
			back_off(h);
			plan_retry(h);
		}
		return error;
	}
	h->retry_at = NEVER;
	h->proven = h->door_closed = h->explained = h->useful = h->ending = false;
	h->since = now_ms();
	h->live_at = wall_ms();
	h->known = true;
	if (h->topics.n_live)
		resubscribe(h, CHUNK_TOPICS);
	return 0;
}

/* May the daemon have read the request? */
static bool has_left(const struct hpkv *h, const struct pending *p)
{
	return p->sent && h->channel.sent >= p->complete;
}

static void set_ending(struct hpkv *h)
{
	h->ending = true;
	snprintf(h->why, sizeof(h->why), "hpkvd is shutting down");
}

/* The result of a request that was not executed and can't be sent. */
static enum hpkv_result away_result(const struct hpkv *h)
{
	return h->door_closed ? HPKV_UNAVAILABLE : HPKV_NO_DAEMON;
}

/* Takes requests that end with the connection out of the table: writes that may have been executed
 * and, if the handle does not reconnect, all others of this connection. The rest wait. */
static void take_ended(struct hpkv *h, struct pending_list *gone)
{
	struct pending *p, *next;

	for (p = TAILQ_FIRST(&h->pendings); p; p = next) {
		next = TAILQ_NEXT(p, link);
		bool ends = p->sent && !h->reconnect;
		/* In gone, sent means that it may have been executed. */
		p->sent = has_left(h, p) && !p->repeatable && !h->door_closed;
		p->delayed = true;
		if (p->sent || ends) {
			unlink_pending(h, p);
			TAILQ_INSERT_TAIL(gone, p, link);
		}
	}
}

/* A daemon that ended in an orderly way may start again at once. One that crashes again and again,
 * or does nothing but end, is given growing pauses. */
static bool is_good_end(const struct hpkv *h)
{
	return (h->ending && h->useful) || (h->proven && now_ms() - h->since >= STABLE_MS);
}

/* Handles the end of the connection. */
static void lost(struct hpkv *h)
{
	struct pending_list gone = TAILQ_HEAD_INITIALIZER(gone);
	struct pending *p;
	char text[HANDLE_ERROR_MAX];

	if (h->ending)
		set_ending(h);
	else if (!h->explained)
		snprintf(h->why, sizeof(h->why), "%s", h->channel.why);
	drop_own(h);
	take_ended(h, &gone);
	channel_close(&h->channel);
	h->resubscribe_at = NEVER;
	if (is_good_end(h))
		h->backoff_ms = 0;
	else
		back_off(h);
	plan_retry(h);
	tell_lost(h, (struct hpkv_bytes){"", 0});
	while ((p = TAILQ_FIRST(&gone))) {
		TAILQ_REMOVE(&gone, p, link);
		snprintf(text, sizeof(text),
			 p->sent ? "sent, but the connection to hpkvd was lost before the answer "
				   "came: %s"
				 : "the connection to hpkvd was lost: %s",
			 h->why);
		settle_failed(h, p, p->sent ? HPKV_UNKNOWN : away_result(h), text);
	}
}

/* ---- lines ---- */

/* Handles an error that answers no request: the daemon explains why it is about to close. */
static void farewell(struct hpkv *h, const struct decoded *d)
{
	decode_answer(&h->scratch, d, true, (struct span){0});
	snprintf(h->why, sizeof(h->why), "hpkvd says: %s", h->scratch.answer.error);
	h->explained = true;
	/* The daemon has read no request then. */
	h->door_closed = !h->proven && strcmp(h->scratch.answer.reason, "too_many_clients") == 0;
}

static void on_unasked(struct hpkv *h, const struct decoded *d)
{
	const struct hpkv_event *e = &h->scratch.event;

	if (!decode_event(&h->scratch, d)) {
		tell_own_event(h, HPKV_EVENT_GAP, "no memory for a line");
		return;
	}
	if (e->type == HPKV_EVENT_UPSTREAM_LOST || e->type == HPKV_EVENT_UPSTREAM_BACK) {
		bool lost = e->type == HPKV_EVENT_UPSTREAM_LOST;
		if (lost == h->told_upstream_lost)
			return;
		h->told_upstream_lost = lost;
	}
	if (e->type == HPKV_EVENT_DROPPED) {
		bool pattern = e->pattern.p;
		struct hpkv_bytes name = pattern ? e->pattern : e->key;
		topics_ended(&h->topics, pattern, (struct span){name.p, name.n});
	}
	tell_event(h, e);
}

/* The last line of a daemon that ends. */
static void on_last_line(struct hpkv *h, const struct decoded *d)
{
	set_ending(h);
	if (decode_event(&h->scratch, d))
		tell_lost(h, h->scratch.event.line);
}

/* Puts a request that was answered back among those that wait, in its place: a daemon that is
 * ending has refused it, or got no answer to this read. */
static bool wait_again(struct hpkv *h, struct pending *p, const struct decoded *d)
{
	bool refused = decode_is_shutting_down(d);

	if (!h->reconnect ||
	    (!refused && !(h->ending && p->repeatable && decode_is_outcome_unknown(d))))
		return false;
	set_ending(h);
	p->sent = false;
	p->delayed = true;
	return true;
}

static bool awaits_answers(const struct hpkv *h)
{
	struct pending *p;

	TAILQ_FOREACH (p, &h->pendings, link) {
		if (p->sent)
			return true;
	}
	return false;
}

static void on_line(struct hpkv *h, struct span line)
{
	struct decoded d;

	if (!decode_line(line, &d))
		return; /* hpkvd sends no such line; requests that wait have deadlines */
	if (decode_is_farewell(&d)) {
		farewell(h, &d);
		return;
	}
	h->proven = true;
	h->explained = false;
	if (!d.id.p && decode_is_shutting_down(&d)) {
		on_last_line(h, &d);
		return;
	}
	if (!d.id.p) {
		h->useful = true;
		on_unasked(h, &d);
		return;
	}
	struct pending *p = find_pending(h, decode_id(&d));
	if (!p || !p->sent)
		return; /* too late: it has ended already */
	if (wait_again(h, p, &d))
		return;
	h->useful = true;
	unlink_pending(h, p);
	struct decode_store *store = store_of(h, p);
	decode_answer(store, &d, p->repeatable, user_id_of(p));
	if (p->n_topics)
		resubscribed(h, p, &store->answer);
	else
		settle(h, p);
}

static void read_lines(struct hpkv *h)
{
	struct span line;
	int more = 0;

	h->channel.budget = TURN_BYTES;
	while (!h->freed && (more = channel_line(&h->channel, &line)) > 0)
		on_line(h, line);
	if (h->freed)
		return;
	/* Without budget more lines may be there to read. */
	bool all_read = more < 0 || (more == 0 && h->channel.budget);
	if (more < 0 || (all_read && h->ending && !awaits_answers(h)))
		lost(h);
	else if (all_read)
		h->live_at = wall_ms();
}

/* ---- time ---- */

/* When the request's time is up. The daemon limits the service's answer itself, and gets GRACE_MS
 * to say so. */
static int64_t end_of(const struct hpkv *h, const struct pending *p)
{
	bool grace = p->remote && p->sent && is_up(h);

	return p->deadline == NEVER ? NEVER
				    : p->deadline + (grace ? GRACE_MS : 0) + h->away - p->away;
}

/* Counts an absence of the program: in a callback, or elsewhere when a step was due. The daemon
 * can't write answers that nobody reads, so this time extends deadlines. */
static void count_absence(struct hpkv *h, int64_t since, int64_t now)
{
	if (since < h->seen_at)
		since = h->seen_at;
	if (since < now - AWAY_MS) {
		h->away += now - since;
		h->seen_at = now;
	}
}

static void expire_one(struct hpkv *h, struct pending *p)
{
	char text[HANDLE_ERROR_MAX];

	if (!is_up(h)) {
		snprintf(text, sizeof(text), "%s", h->why);
		settle_failed(h, p, away_result(h), text);
		return;
	}
	const char *unsent = h->ending ? h->why : "hpkvd has not read it in time";
	settle_failed(h, p, p->repeatable || !p->sent ? HPKV_UNAVAILABLE : HPKV_UNKNOWN,
		      p->sent ? "hpkvd has not answered in time" : unsent);
}

static void expire(struct hpkv *h)
{
	struct pending_list over = TAILQ_HEAD_INITIALIZER(over);
	struct pending *p, *next;
	int64_t now = now_ms();

	if (h->check_at > now)
		return;
	h->check_at = NEVER;
	for (p = TAILQ_FIRST(&h->pendings); p; p = next) {
		int64_t end = end_of(h, p);
		next = TAILQ_NEXT(p, link);
		if (end <= now) {
			unlink_pending(h, p);
			TAILQ_INSERT_TAIL(&over, p, link);
		} else if (end < h->check_at) {
			h->check_at = end;
		}
	}
	while ((p = TAILQ_FIRST(&over))) {
		TAILQ_REMOVE(&over, p, link);
		expire_one(h, p);
	}
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void arm_timer(struct hpkv *h)
{
	int64_t at = earlier(earlier(h->check_at, h->resubscribe_at), h->retry_at);
	struct itimerspec when = {{0}, {0}};

	if (h->timer_at == at)
		return;
	h->timer_at = at;
	if (at != NEVER) {
		at = at > 0 ? at : 1;
		when.it_value = (struct timespec){at / 1000, at % 1000 * 1000000 + 1};
	}
	timerfd_settime(h->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void quieten_timer(struct hpkv *h, int64_t now)
{
	uint64_t times;

	if (h->timer_at > now)
		return;
	if (read(h->timer, &times, sizeof(times)) == (ssize_t)sizeof(times))
		h->timer_at = 0; /* it has expired: set it anew in any case */
}

/* ---- a step ---- */

static void step(struct hpkv *h)
{
	int64_t now = now_ms();

	count_absence(h, h->timer_at, now);
	h->seen_at = now;
	quieten_timer(h, now);
	if (!is_up(h) && h->retry_at <= now) {
		if (is_needed(h))
			connect_now(h);
		else
			h->retry_at = NEVER;
	}
	if (is_up(h) && h->resubscribe_at <= now) {
		drop_own(h);
		resubscribe(h, CHUNK_TOPICS);
	}
	if (is_up(h)) {
		hand_over_all(h);
		read_lines(h);
	}
	count_absence(h, now, now_ms());
	if (!h->freed)
		expire(h);
	if (!h->freed && is_up(h))
		tell_back(h);
}

void handle_step(struct hpkv *h)
{
	h->running = true;
	h->called = 0;
	step(h);
	h->running = false;
	if (!h->freed)
		arm_timer(h);
}

bool handle_poll(const struct hpkv *h, int timeout_ms)
{
	struct pollfd p = {.fd = h->epoll, .events = POLLIN};

	return poll(&p, 1, timeout_ms) >= 0;
}

/* ---- the beginning of a request, and the end of a handle ---- */

static int refuse(struct hpkv *h, int result, const char *text)
{
	snprintf(h->error, sizeof(h->error), "%s", text);
	return result;
}

/* Does a request wait that was not sent? error: of connect_now(), or 0. */
static bool may_wait(const struct hpkv *h, int error)
{
	switch (error) {
	case 0:
		return h->ending;
	case -EAGAIN: /* the daemon is there, and too busy to accept */
		return true;
	case -ENOENT:
	case -ECONNREFUSED:
	case -EACCES: /* a socket gets its mode after it was made */
		return h->known && h->reconnect;
	default:
		return false;
	}
}

/* Starts a linked request. 0, or the result with which it ends at once. Requests that wait are
 * older and go first. */
static int dispatch(struct hpkv *h, struct pending *p)
{
	int error = is_up(h) ? 0 : connect_now(h);
	bool waits = may_wait(h, error);

	if (error && !waits)
		return refuse(h, error == -ENOMEM ? HPKV_NO_MEMORY : HPKV_NO_DAEMON, h->why);
	if (!error)
		hand_over_all(h);
	p->delayed = !p->sent;
	if (p->sent || (waits && h->pending_bytes - p->n <= CHANNEL_UNSENT_MAX))
		return 0;
	return refuse(h, HPKV_BUSY, "too much waits to be sent");
}

static int start_pending(struct hpkv *h, struct pending *p)
{
	bool topics = p->op == HPKV_SUBSCRIBE || p->op == HPKV_UNSUBSCRIBE;

	if (!h->running) /* an absence before the request is not its concern */
		count_absence(h, h->timer_at, now_ms());
	if (topics && topics_sent(&h->topics, line_of(p), p->id, p->op == HPKV_SUBSCRIBE) < 0)
		return refuse(h, HPKV_NO_MEMORY, "no memory");
	link_pending(h, p);
	int result = dispatch(h, p);
	if (result) {
		unlink_pending(h, p);
		if (p->op == HPKV_SUBSCRIBE)
			topics_answered(&h->topics, line_of(p), p->id, false);
		if (TAILQ_EMPTY(&h->pendings))
			plan_retry(h);
	}
	if (!h->running)
		arm_timer(h);
	return result;
}

int handle_start(struct hpkv *h, const struct hpkv_request *q, hpkv_answer_fn *done, void *arg,
		 bool *finished)
{
	char fault[ENCODE_FAULT_MAX] = "no memory";
	struct encoded e;
	int result = encode_request(q, ++h->last_id, h->timeout_ms, &e, fault);

	*h->error = '\0';
	if (result)
		return refuse(h, result, fault);
	if (h->freed) { /* from a callback that the end of the handle runs */
		text_free(&e.line);
		return refuse(h, HPKV_CANCELLED, "the handle was freed");
	}
	struct pending *p = make_pending(h, &e);
	text_free(&e.line);
	if (!p)
		return refuse(h, HPKV_NO_MEMORY, "no memory");
	p->done = done;
	p->arg = arg;
	p->finished = finished;
	result = start_pending(h, p);
	if (result)
		free(p);
	return result;
}

void handle_destroy(struct hpkv *h)
{
	struct pending *p;

	drop_own(h);
	while ((p = TAILQ_FIRST(&h->pendings))) {
		unlink_pending(h, p);
		settle_failed(h, p, HPKV_CANCELLED, "the handle was freed");
	}
	/* Nothing is removed from the epoll set: another process may go on with it. */
	if (h->epoll >= 0)
		close(h->epoll);
	h->channel.epoll = -1;
	channel_close(&h->channel);
	topics_clear(&h->topics);
	if (h->timer >= 0)
		close(h->timer);
	decode_free(&h->scratch);
	decode_free(&h->last);
	free(h->given);
	free(h->path);
	free(h);
}
