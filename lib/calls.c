/* The public functions, on top of the handle: making and freeing one, blocking calls, event loops.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#include "handle.h"

enum { TIMEOUT_MS = 10000, TIMEOUT_MAX_MS = 600000 };

/* Answers of calls that could not begin, or whose handle is gone. */
#define NO_ANSWER(why, sentence)                                                                   \
	{                                                                                          \
		.result = (why), .error = (sentence), .reason = "", .retry_after_ms = -1,          \
		.line = {"", 0},                                                                   \
	}

static const struct hpkv_answer cancelled = NO_ANSWER(HPKV_CANCELLED, "the handle was freed");
static const struct hpkv_answer no_handle =
	NO_ANSWER(HPKV_NO_MEMORY, "no memory, or no descriptors");
static const struct hpkv_answer busy =
	NO_ANSWER(HPKV_BUSY, "a blocking call from within a callback");

/* ---- the handle ---- */

static bool set_up(struct hpkv *h, const char *socket)
{
	struct epoll_event event = {.events = EPOLLIN};

	h->given = socket ? strdup(socket) : NULL;
	h->epoll = epoll_create1(EPOLL_CLOEXEC);
	h->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if ((socket && !h->given) || h->epoll < 0 || h->timer < 0)
		return false;
	return epoll_ctl(h->epoll, EPOLL_CTL_ADD, h->timer, &event) == 0;
}

struct hpkv *hpkv_new(const char *socket)
{
	struct hpkv *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	TAILQ_INIT(&h->pendings);
	TAILQ_INIT(&h->topics.all);
	h->timeout_ms = TIMEOUT_MS;
	h->reconnect = true;
	h->timer_at = h->retry_at = h->check_at = h->resubscribe_at = INT64_MAX;
	bool ready = set_up(h, socket);
	channel_init(&h->channel, h->epoll);
	if (ready)
		return h;
	int error = errno;
	handle_destroy(h);
	errno = error;
	return NULL;
}

void hpkv_free(struct hpkv *h)
{
	if (!h || h->freed)
		return;
	h->freed = true;
	/* Within a callback, the function that runs it frees the handle afterwards. */
	if (!h->depth)
		handle_destroy(h);
}

const char *hpkv_socket(struct hpkv *h)
{
	if (h->channel.fd < 0)
		handle_find_socket(h);
	return h->path ? h->path : "";
}

void hpkv_set_timeout(struct hpkv *h, int ms)
{
	h->timeout_ms = ms < 1 ? 1 : ms > TIMEOUT_MAX_MS ? TIMEOUT_MAX_MS : ms;
}

void hpkv_set_reconnect(struct hpkv *h, int on)
{
	h->reconnect = on;
}

void hpkv_on_event(struct hpkv *h, hpkv_event_fn *event, void *arg)
{
	h->event = event;
	h->event_arg = arg;
}

const char *hpkv_error(const struct hpkv *h)
{
	return h ? h->error : no_handle.error;
}

const char *hpkv_version(void)
{
	return PACKAGE_VERSION;
}

/* ---- blocking calls ---- */

/* Runs one request to its end; its answer is h->last. */
static const struct hpkv_answer *call(struct hpkv *h, const struct hpkv_request *q)
{
	bool finished = false;

	if (h->depth)
		return &busy;
	int result = handle_start(h, q, NULL, NULL, &finished);
	if (result) {
		decode_failure(&h->last, (enum hpkv_result)result, h->error);
		return &h->last.answer;
	}
	for (;;) {
		handle_step(h);
		if (h->freed) {
			handle_destroy(h);
			return &cancelled;
		}
		if (finished)
			break;
		handle_poll(h, -1);
	}
	snprintf(h->error, sizeof(h->error), "%s", h->last.answer.error);
	return &h->last.answer;
}

int hpkv_call(struct hpkv *h, const struct hpkv_request *request, const struct hpkv_answer **answer)
{
	const struct hpkv_answer *given = h ? call(h, request) : &no_handle;

	if (answer)
		*answer = given;
	return given->result;
}

/* Runs a call whose answer is one value. */
static int call_value(struct hpkv *h, const struct hpkv_request *q, struct hpkv_bytes *value)
{
	const struct hpkv_answer *answer;
	int result = hpkv_call(h, q, &answer);

	if (result == HPKV_OK && value)
		*value = answer->value;
	return result;
}

int hpkv_get(struct hpkv *h, struct hpkv_bytes key, struct hpkv_bytes *value)
{
	return call_value(h, &(struct hpkv_request){.op = HPKV_GET, .key = key}, value);
}

int hpkv_set(struct hpkv *h, struct hpkv_bytes key, struct hpkv_bytes value)
{
	struct hpkv_request q = {.op = HPKV_SET, .key = key, .value = value};

	return hpkv_call(h, &q, NULL);
}

int hpkv_patch(struct hpkv *h, struct hpkv_bytes key, struct hpkv_bytes value)
{
	struct hpkv_request q = {.op = HPKV_PATCH, .key = key, .value = value};

	return hpkv_call(h, &q, NULL);
}

int hpkv_delete(struct hpkv *h, struct hpkv_bytes key)
{
	return hpkv_call(h, &(struct hpkv_request){.op = HPKV_DELETE, .key = key}, NULL);
}

int hpkv_range(struct hpkv *h, struct hpkv_bytes from, struct hpkv_bytes to, unsigned limit,
	       const struct hpkv_answer **answer)
{
	struct hpkv_request q = {.op = HPKV_RANGE, .key = from, .end_key = to, .limit = limit};

	return hpkv_call(h, &q, answer);
}

int hpkv_increment(struct hpkv *h, struct hpkv_bytes key, long long by, struct hpkv_bytes *sum)
{
	char digits[32];
	struct hpkv_request q = {.op = HPKV_INCREMENT, .key = key};

	snprintf(digits, sizeof(digits), "%lld", by);
	q.value = hpkv_str(digits);
	return call_value(h, &q, sum);
}

static struct hpkv_request about_topics(enum hpkv_op op, const struct hpkv_bytes *keys,
					size_t n_keys, const struct hpkv_bytes *patterns,
					size_t n_patterns)
{
	return (struct hpkv_request){.op = op,
				     .keys = keys,
				     .n_keys = n_keys,
				     .patterns = patterns,
				     .n_patterns = n_patterns};
}

int hpkv_subscribe(struct hpkv *h, const struct hpkv_bytes *keys, size_t n_keys,
		   const struct hpkv_bytes *patterns, size_t n_patterns, int initial)
{
	struct hpkv_request q = about_topics(HPKV_SUBSCRIBE, keys, n_keys, patterns, n_patterns);

	q.initial = initial;
	return hpkv_call(h, &q, NULL);
}

int hpkv_unsubscribe(struct hpkv *h, const struct hpkv_bytes *keys, size_t n_keys,
		     const struct hpkv_bytes *patterns, size_t n_patterns)
{
	struct hpkv_request q = about_topics(HPKV_UNSUBSCRIBE, keys, n_keys, patterns, n_patterns);

	return hpkv_call(h, &q, NULL);
}

int hpkv_token(struct hpkv *h, const struct hpkv_bytes *keys, size_t n_keys,
	       const struct hpkv_bytes *patterns, size_t n_patterns, const char *access_pattern,
	       struct hpkv_bytes *token)
{
	struct hpkv_request q = about_topics(HPKV_TOKEN, keys, n_keys, patterns, n_patterns);

	q.value = hpkv_str(access_pattern);
	return call_value(h, &q, token);
}

int hpkv_ping(struct hpkv *h)
{
	return hpkv_call(h, &(struct hpkv_request){.op = HPKV_PING}, NULL);
}

int hpkv_status(struct hpkv *h, struct hpkv_bytes *line)
{
	const struct hpkv_answer *answer;
	int result = hpkv_call(h, &(struct hpkv_request){.op = HPKV_STATUS}, &answer);

	if (result == HPKV_OK && line)
		*line = answer->line;
	return result;
}

/* ---- event loops ---- */

int hpkv_fd(const struct hpkv *h)
{
	return h->epoll;
}

int hpkv_process(struct hpkv *h)
{
	if (h->depth)
		return HPKV_BUSY;
	handle_step(h);
	int called = (int)h->called;
	if (h->freed)
		handle_destroy(h);
	return called;
}

static int64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int hpkv_wait(struct hpkv *h, int timeout_ms)
{
	int64_t until = clock_ms() + timeout_ms;

	for (;;) {
		int called = hpkv_process(h);
		if (called)
			return called;
		int left = timeout_ms;
		if (timeout_ms >= 0)
			left = until > clock_ms() ? (int)(until - clock_ms()) : 0;
		if (left == 0 || !handle_poll(h, left))
			return 0;
	}
}

int hpkv_send(struct hpkv *h, const struct hpkv_request *request, hpkv_answer_fn *done, void *arg)
{
	return handle_start(h, request, done, arg, NULL);
}
