/* driver - a program that uses libhpkv in an event loop, controlled by a test.
 *
 * Each line of stdin is a command: words with spaces between them, in which %XX stands for a byte.
 * Each line of stdout is the result of a command ("= RESULT ..."), an answer ("a NAME RESULT ...")
 * or an event ("e TYPE ..."), encoded in the same way. The driver polls stdin and hpkv_fd(), as a
 * program with an event loop of its own does. */
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hpkv.h>

enum { WORDS_MAX = 64, LINE_SIZE = 1 << 20 };

static struct hpkv *handle;
static bool free_in_callback, call_in_callback;
static pid_t other; /* a process that was forked */

/* ---- words ---- */

static int hex(char c)
{
	return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* "@N": N times x, for text that is too long for a line. */
static struct hpkv_bytes many(const char *number)
{
	static char x[4 << 20];
	size_t n = strtoul(number, NULL, 10);

	memset(x, 'x', sizeof(x));
	return (struct hpkv_bytes){x, n < sizeof(x) ? n : sizeof(x)};
}

static struct hpkv_bytes decode(char *word)
{
	char *to = word;

	if (*word == '@')
		return many(word + 1);

	for (const char *at = word; *at; at++) {
		if (*at == '%' && at[1] && at[2]) {
			*to++ = (char)(hex(at[1]) * 16 + hex(at[2]));
			at += 2;
		} else {
			*to++ = *at;
		}
	}
	return (struct hpkv_bytes){word, (size_t)(to - word)};
}

static void put(struct hpkv_bytes bytes)
{
	fputs(bytes.p ? " =" : " -", stdout);
	for (size_t i = 0; i < bytes.n; i++) {
		unsigned char c = (unsigned char)bytes.p[i];
		if (c > 0x20 && c < 0x7f && c != '%')
			putchar(c);
		else
			printf("%%%02x", c);
	}
}

/* ---- output ---- */

static void put_result(int result)
{
	printf("= %d", result);
	put(hpkv_str(hpkv_error(handle)));
}

static void end_line(void)
{
	putchar('\n');
	fflush(stdout);
}

static void put_answer(const struct hpkv_answer *a)
{
	printf(" %d %d", (int)a->result, a->code);
	put(hpkv_str(a->reason));
	put(a->value);
	printf(" %zu %d %d", a->n_records, a->truncated, a->retry_after_ms);
	put(a->line);
	put(hpkv_str(a->error));
	for (size_t i = 0; i < a->n_records; i++) {
		put(a->records[i].key);
		put(a->records[i].value);
	}
}

static void within_callback(void)
{
	if (call_in_callback) {
		printf("busy %d %d\n", hpkv_ping(handle), hpkv_process(handle));
		fflush(stdout);
		call_in_callback = false;
	}
	if (free_in_callback) {
		hpkv_free(handle);
		free_in_callback = false;
		handle = NULL;
	}
}

static void on_answer(void *arg, const struct hpkv_answer *answer)
{
	printf("a %s", (char *)arg);
	put_answer(answer);
	end_line();
	free(arg);
	within_callback();
}

static void on_event(void *arg, const struct hpkv_event *e)
{
	(void)arg;
	printf("e %d %u %llu", (int)e->type, e->flags, (unsigned long long)e->skipped);
	put(e->key);
	put(e->value);
	put(e->pattern);
	printf(" %lld %lld %lld", (long long)e->timestamp, (long long)e->since,
	       (long long)e->until);
	put(hpkv_str(e->text));
	put(e->line);
	end_line();
	within_callback();
}

/* ---- commands ---- */

struct topics {
	struct hpkv_bytes keys[WORDS_MAX], patterns[WORDS_MAX];
	size_t n_keys, n_patterns;
};

/* Words as "k:KEY" and "p:PATTERN". */
static struct topics topics_of(char **words, int n)
{
	struct topics t = {.n_keys = 0};

	for (int i = 0; i < n; i++) {
		struct hpkv_bytes name = decode(words[i] + 2);
		if (words[i][0] == 'k')
			t.keys[t.n_keys++] = name;
		else
			t.patterns[t.n_patterns++] = name;
	}
	return t;
}

static enum hpkv_op op_of(const char *name)
{
	static const char *const names[] = {"get",   "set",       "patch",     "delete",
					    "range", "increment", "subscribe", "unsubscribe",
					    "token", "ping",      "status",    "stats"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], name) == 0)
			return (enum hpkv_op)(i + 1);
	}
	return HPKV_JSON;
}

static struct hpkv_request request_of(char **words, int n)
{
	struct hpkv_request q = {.op = op_of(words[0])};

	if (q.op == HPKV_JSON)
		q.value = decode(words[1]);
	else if (n > 1)
		q.key = decode(words[1]);
	if (q.op == HPKV_RANGE && n > 2)
		q.end_key = decode(words[2]);
	else if (n > 2)
		q.value = decode(words[2]);
	return q;
}

static void run_blocking(char **words, int n)
{
	struct hpkv_bytes value = {NULL, 0}, key = n > 1 ? decode(words[1]) : value;
	struct topics t;
	int result;

	switch (op_of(words[0])) {
	case HPKV_GET:
		result = hpkv_get(handle, key, &value);
		break;
	case HPKV_SET:
		result = hpkv_set(handle, key, decode(words[2]));
		break;
	case HPKV_PATCH:
		result = hpkv_patch(handle, key, decode(words[2]));
		break;
	case HPKV_DELETE:
		result = hpkv_delete(handle, key);
		break;
	case HPKV_INCREMENT:
		result = hpkv_increment(handle, key, atoll(words[2]), &value);
		break;
	case HPKV_SUBSCRIBE:
		t = topics_of(words + 2, n - 2);
		result = hpkv_subscribe(handle, t.keys, t.n_keys, t.patterns, t.n_patterns,
					atoi(words[1]));
		break;
	case HPKV_UNSUBSCRIBE:
		t = topics_of(words + 1, n - 1);
		result = hpkv_unsubscribe(handle, t.keys, t.n_keys, t.patterns, t.n_patterns);
		break;
	case HPKV_TOKEN:
		t = topics_of(words + 2, n - 2);
		result = hpkv_token(handle, t.keys, t.n_keys, t.patterns, t.n_patterns,
				    words[1][0] == '-' ? NULL : words[1], &value);
		break;
	case HPKV_PING:
		result = hpkv_ping(handle);
		break;
	default:
		result = hpkv_status(handle, &value);
		break;
	}
	put_result(result);
	put(value);
	end_line();
}

static void run_call(char **words, int n)
{
	struct hpkv_request q = request_of(words, n);
	const struct hpkv_answer *answer = NULL;
	int result = hpkv_call(handle, &q, &answer);

	printf("= %d", result);
	put_answer(answer);
	end_line();
}

static void run_send(char **words, int n)
{
	struct hpkv_request q = request_of(words + 1, n - 1);
	char *name = strdup(words[0]);
	int result = hpkv_send(handle, &q, on_answer, name);

	if (result) {
		put_result(result);
		end_line();
		free(name);
	}
}

/* Sends the same request so many times, without a callback. */
static void run_many(char **words, int n)
{
	struct hpkv_request q = request_of(words + 1, n - 1);

	for (int i = atoi(words[0]); i > 0; i--)
		hpkv_send(handle, &q, NULL, NULL);
}

static void run_range(char **words)
{
	const struct hpkv_answer *answer = NULL;
	int result = hpkv_range(handle, decode(words[1]), decode(words[2]),
				(unsigned)atoi(words[3]), &answer);

	printf("= %d", result);
	put_answer(answer);
	end_line();
}

static void run_new(char **words, int n)
{
	hpkv_free(handle);
	handle = hpkv_new(n < 2 ? NULL : strcmp(words[1], "empty") == 0 ? "" : words[1]);
	hpkv_on_event(handle, on_event, NULL);
	printf("= 0");
	put(hpkv_str(hpkv_socket(handle)));
	end_line();
}

static void run(char **words, int n)
{
	if (strcmp(words[0], "new") == 0) {
		run_new(words, n);
	} else if (strcmp(words[0], "timeout") == 0) {
		hpkv_set_timeout(handle, atoi(words[1]));
	} else if (strcmp(words[0], "reconnect") == 0) {
		hpkv_set_reconnect(handle, atoi(words[1]));
	} else if (strcmp(words[0], "send") == 0) {
		run_send(words + 1, n - 1);
	} else if (strcmp(words[0], "many") == 0) {
		run_many(words + 1, n - 1);
	} else if (strcmp(words[0], "call") == 0) {
		run_call(words + 1, n - 1);
	} else if (strcmp(words[0], "range") == 0) {
		run_range(words);
	} else if (strcmp(words[0], "free-in-callback") == 0) {
		free_in_callback = true;
	} else if (strcmp(words[0], "call-in-callback") == 0) {
		call_in_callback = true;
	} else if (strcmp(words[0], "fork") == 0) {
		other = fork();
		if (other == 0 && n > 1) /* the other one frees it */
			hpkv_free(handle);
		else if (other == 0)
			pause(); /* shares all descriptors with this one, and uses none */
		if (other == 0)
			_exit(0);
		if (n > 1) {
			waitpid(other, NULL, 0);
			other = 0;
		}
	} else if (strcmp(words[0], "sleep") == 0) { /* n: so many times; it sends each time */
		for (int i = n > 2 ? atoi(words[2]) : 1; i > 0; i--) {
			usleep((useconds_t)atoi(words[1]) * 1000);
			if (n > 2)
				hpkv_send(handle, &(struct hpkv_request){.op = HPKV_PING}, NULL,
					  NULL);
		}
	} else if (strcmp(words[0], "readable") == 0) {
		struct pollfd p = {.fd = hpkv_fd(handle), .events = POLLIN};
		hpkv_process(handle);
		printf("= %d\n", poll(&p, 1, 0));
		fflush(stdout);
	} else if (strcmp(words[0], "wait") == 0) {
		printf("= %d\n", hpkv_wait(handle, atoi(words[1])));
		fflush(stdout);
	} else {
		run_blocking(words, n);
	}
}

/* ---- the loop ---- */

static void run_line(char *line)
{
	char *words[WORDS_MAX], *save = NULL;
	int n = 0;

	for (char *w = strtok_r(line, " \n", &save); w && n < WORDS_MAX;
	     w = strtok_r(NULL, " \n", &save))
		words[n++] = w;
	if (n)
		run(words, n);
}

int main(void)
{
	char *line = malloc(LINE_SIZE);
	struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};

	if (!line)
		return 1;
	setvbuf(stdin, NULL, _IONBF, 0); /* poll() would not see commands in a buffer */
	for (;;) {
		p[1].fd = handle ? hpkv_fd(handle) : -1;
		if (poll(p, 2, -1) < 0)
			break;
		if (p[1].revents)
			hpkv_process(handle);
		if (p[0].revents) {
			if (!fgets(line, LINE_SIZE, stdin))
				break;
			run_line(line);
		}
	}
	if (other > 0)
		kill(other, SIGKILL);
	hpkv_free(handle);
	free(line);
	return 0;
}
