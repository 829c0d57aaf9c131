/* raw: passes lines to and from the daemon unchanged, as socat would.
 *
 * The library only finds the socket: every byte is the user's. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "address.h"
#include "commands.h"
#include "field.h"
#include "base/mem.h"
#include "base/output.h"
#include "visible.h"

enum { CHUNK = 65536 };

/* ---- answers that are due, for when the time is up ---- */

struct tally {
	size_t asked, answered;
	bool begun; /* ... and one more: a line without its end that is not empty */
	char *line; /* owned; the line received so far */
	size_t n, size;
};

static void count_asked(struct tally *t, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		t->asked += bytes[i] == '\n' && t->begun;
		t->begun = bytes[i] != '\n' && (t->begun || bytes[i] != '\r');
	}
}

static void count_answered(struct tally *t, const char *bytes, size_t n)
{
	struct json_value type;

	if (t->size - t->n < n)
		t->line = mem_resize(t->line, t->size = 2 * (t->size + n));
	for (size_t i = 0; i < n; i++) {
		t->line[t->n++] = bytes[i];
		if (bytes[i] != '\n')
			continue;
		/* Lines that answer no request have a type. */
		t->answered += !field_find((struct span){t->line, t->n - 1}, "type", &type);
		t->n = 0;
	}
}

static int time_is_up(const struct tally *t)
{
	size_t asked = t->asked + t->begun; /* the last line needs no LF */

	if (asked <= t->answered) /* only subscriptions keep the connection open */
		return CLI_DONE;
	cli_say("raw: the time is up, and %zu of %zu answers are missing; these requests may have "
		"been done or not: look before you repeat them",
		asked - t->answered, asked);
	return CLI_UNKNOWN;
}

/* ---- bytes ---- */

/* One direction of the connection. */
struct pipe_end {
	int from, to;
	struct tally *tally; /* NULL: nothing is counted */
	void (*count)(struct tally *t, const char *bytes, size_t n);
	bool ended; /* end of file */
	size_t n, sent;
	char bytes[CHUNK];
};

/* Waits for a daemon that is too busy to accept; for timeout_ms at most, if that is more than 0. A
 * process that is stopped and continued meanwhile waits on. */
static int connect_within(int fd, const struct sockaddr_un *address, socklen_t n, int timeout_ms)
{
	long long until = cli_now_ms() + timeout_ms;

	for (;;) {
		if (timeout_ms > 0) {
			long long left = until - cli_now_ms();
			struct timeval most = {left / 1000, left % 1000 * 1000};
			if (left <= 0)
				return -EAGAIN; /* as connect() reports it */
			setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
		}
		if (connect(fd, (const struct sockaddr *)address, n) == 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

static int open_socket(const char *path, int timeout_ms)
{
	struct sockaddr_un address;
	socklen_t n;

	int error = hpkv_address_read(path, &address, &n);
	if (error) {
		errno = -error;
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	error = connect_within(fd, &address, n, timeout_ms);
	if (!error)
		return fd;
	close(fd);
	errno = -error;
	return -1;
}

static bool is_empty(const struct pipe_end *p)
{
	return p->sent == p->n;
}

/* Reads once, into an empty buffer. false: it failed. */
static bool pull(struct pipe_end *p)
{
	ssize_t n = read(p->from, p->bytes, sizeof(p->bytes));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	p->ended = n == 0;
	p->n = (size_t)n;
	p->sent = 0;
	if (p->tally)
		p->count(p->tally, p->bytes, p->n);
	return true;
}

/* Writes once. false: the other side is closed. SIGPIPE is avoided for the socket, and wanted for a
 * pipe. */
static bool push(struct pipe_end *p, bool is_socket)
{
	const char *at = p->bytes + p->sent;
	ssize_t n = is_socket ? send(p->to, at, p->n - p->sent, MSG_NOSIGNAL | MSG_DONTWAIT)
			      : write(p->to, at, p->n - p->sent);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	p->sent += (size_t)n;
	return true;
}

/* The output can't be written. A reader that has gone is no error. */
static int unwritten(int error)
{
	if (output_is_unread(-error))
		return CLI_DONE;
	cli_say("raw: can't write the output: %s", strerror(error));
	return CLI_USAGE;
}

/* Passes bytes until the daemon closes, which sets out.ended. timeout_ms: how long the daemon may
 * be silent while it has something to read or, after the end of stdin, to answer. */
static int pump(struct pipe_end *in, struct pipe_end *out, int timeout_ms)
{
	bool shut = false, broken = false;

	while (!out->ended || !is_empty(out)) {
		struct pollfd p[4] = {
			{.fd = in->ended || !is_empty(in) ? -1 : in->from, .events = POLLIN},
			{.fd = is_empty(in) ? -1 : in->to, .events = POLLOUT},
			{.fd = out->ended || !is_empty(out) ? -1 : out->from, .events = POLLIN},
			{.fd = out->to, .events = is_empty(out) ? 0 : POLLOUT},
		};
		bool its_turn = is_empty(out) && (in->ended || !is_empty(in));
		int ready = poll(p, 4, its_turn ? timeout_ms : -1);
		if (ready == 0)
			return time_is_up(in->tally);
		if (ready < 0)
			continue;
		if (p[0].revents && !pull(in)) {
			cli_say("raw: can't read stdin: %s", strerror(errno));
			return CLI_USAGE;
		}
		if (p[1].revents && !push(in, true))
			in->n = in->sent = 0; /* the daemon's last lines are still to be read */
		if (p[2].revents && !pull(out))
			out->ended = broken = true;
		if (p[3].revents && is_empty(out))
			return CLI_DONE; /* the reader of the output has gone */
		if (p[3].revents && !push(out, false))
			return unwritten(errno);
		if (in->ended && is_empty(in) && !shut) {
			shutdown(in->to, SHUT_WR);
			shut = true;
		}
	}
	if (shut && !broken)
		return CLI_DONE;
	cli_say("raw: hpkvd has closed the connection");
	return CLI_NO_DAEMON;
}

static int run(struct cli *c, int argc, char **argv)
{
	static struct pipe_end in, out;
	struct tally tally = {0};
	const char *path = hpkv_socket(c->hpkv);
	int fd = open_socket(path, c->timeout_ms), error = errno;

	(void)argc;
	(void)argv;
	if (fd < 0) {
		cli_say("raw: no connection to hpkvd at %s: %s; is hpkvd running? (--socket or "
			"HPKVD_SOCKET names another socket)",
			visible_sentence(hpkv_str(path)), hpkv_address_fault(error));
		return CLI_NO_DAEMON;
	}
	struct tally *counts = c->timeout_ms > 0 ? &tally : NULL;
	in = (struct pipe_end){
		.from = STDIN_FILENO, .to = fd, .tally = counts, .count = count_asked};
	out = (struct pipe_end){
		.from = fd, .to = STDOUT_FILENO, .tally = counts, .count = count_answered};
	int status = pump(&in, &out, c->timeout_ms);
	free(tally.line);
	close(fd);
	return status;
}

const struct command cmd_raw = {
	.name = "raw",
	.args = "",
	.summary = "send lines of JSON from stdin, print the answers",
	.help = "Sends stdin unchanged to the daemon's socket, and prints all that comes back;\n"
		"doc/protocol.md describes both. Ends when all requests are answered or, if\n"
		"there are subscriptions, when it is interrupted. --timeout bounds the wait for\n"
		"answers. The exit status is 6 if answers are missing then.\n"
		"\n"
		"  echo '{\"op\":\"get\",\"key\":\"user:1\"}' | hpkv raw\n",
	.exec = run,
};
