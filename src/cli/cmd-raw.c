/* raw: lines to the daemon as they are, lines of it as they are; what socat does, without socat.
 *
 * The library is only asked where the socket is: every byte is the user's. */
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
#include "show.h"

enum { CHUNK = 65536 };

/* ---- how many answers are due, for when the time is up ---- */

struct tally {
	size_t asked, answered;
	bool begun; /* ... and one more: a line that has no end yet is not empty */
	char *line; /* owned; what has come of one */
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
		/* What comes unasked has a type. */
		t->answered += !field_find((struct span){t->line, t->n - 1}, "type", &type);
		t->n = 0;
	}
}

static int time_is_up(const struct tally *t)
{
	size_t asked = t->asked + t->begun; /* the last line needs no end */

	if (asked <= t->answered) /* but there are subscriptions */
		return CLI_DONE;
	cli_say("raw: the time is up, and %zu of %zu answers are missing; what they are about may "
		"have been done or not: look before you repeat it",
		asked - t->answered, asked);
	return CLI_UNKNOWN;
}

/* ---- bytes ---- */

/* What goes one way. */
struct pipe_end {
	int from, to;
	struct tally *tally; /* NULL: nothing is counted */
	void (*count)(struct tally *t, const char *bytes, size_t n);
	bool ended; /* nothing more comes */
	size_t n, sent;
	char bytes[CHUNK];
};

/* The time limits how long a daemon that is too busy to accept is waited for. */
static int open_socket(const char *path, int timeout_ms)
{
	struct sockaddr_un address;
	struct timeval most = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	socklen_t n;

	int error = hpkv_address_read(path, &address, &n);
	if (error) {
		errno = -error;
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && timeout_ms > 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, n) == 0)
		return fd;
	error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	return -1;
}

static bool is_empty(const struct pipe_end *p)
{
	return p->sent == p->n;
}

/* Reads when there is something and nothing waits. false: it failed. */
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

/* false: nobody takes it. A socket must not make a signal of that, a pipe may. */
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

/* Nobody reads the answers any more, which is nothing to talk about, or they can't be written. */
static int unwritten(int error)
{
	if (output_is_unread(-error))
		return CLI_DONE;
	cli_say("raw: can't write the output: %s", strerror(error));
	return CLI_USAGE;
}

/* Until the daemon closes. out.ended then. timeout_ms: how long it may be silent while it has
 * something to read, or, once stdin has ended, to answer. */
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
			in->n = in->sent = 0; /* what the daemon said last is still to be read */
		if (p[2].revents && !pull(out))
			out->ended = broken = true;
		if (p[3].revents && is_empty(out))
			return CLI_DONE; /* nobody reads the answers */
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
			"HPKVD_SOCKET "
			"names another socket)",
			show_sentence(hpkv_str(path)), hpkv_address_fault(error));
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
	.summary = "send lines of JSON from stdin, print what comes",
	.help = "Sends stdin to the daemon's socket as it is, and prints what comes back as it\n"
		"comes; doc/protocol.md says what both are. Ends when the daemon has answered\n"
		"all, or, once something is subscribed to, when it is interrupted. With a\n"
		"--timeout it waits no longer for what hpkvd has to answer, and ends with 6 if\n"
		"an answer is missing then.\n"
		"\n"
		"  echo '{\"op\":\"get\",\"key\":\"user:1\"}' | hpkv raw\n",
	.exec = run,
};
