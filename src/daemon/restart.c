#include "daemon/restart.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/orphans.h"
#include "base/secret.h"
#include "base/timer.h"
#include "config/environment.h"

enum {
	ASK_MS = 10000,   /* for the other program to say whether it would start */
	WAIT_MS = 10,     /* between looks whether it has ended, once it says no more */
	WORDS_MAX = 4096, /* bytes of what it says that are kept for the log */
	FIRST_FD = 3,     /* SD_LISTEN_FDS_START */
};

struct restart_question {
	pid_t pid;
	int words_fd; /* what it says; -1: it says no more */
	struct event *readable, *step;
	int64_t waited_ms;
	char words[WORDS_MAX];
	size_t n;
	restart_answer *answer;
	void *owner;
};

static const char self[] = "/proc/self/exe", deleted[] = " (deleted)";

/* Do we run the file at this path? If that can't be known, we are told the truth. */
static bool is_our_path(const char *path)
{
	struct stat a, b;

	if (!path || path[0] != '/')
		return false;
	return stat(self, &b) < 0 ||
	       (stat(path, &a) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

/* argv[0] may go through a symbolic link that an upgrade changes. */
char *restart_path(const char *argv0)
{
	enum { DELETED = sizeof(deleted) - 1 };
	char path[4096];

	if (is_our_path(argv0))
		return mem_strdup(argv0);
	ssize_t n = readlink(self, path, sizeof(path) - 1);
	if (n <= 0 || path[0] != '/')
		return NULL;
	if (n > DELETED && memcmp(path + n - DELETED, deleted, DELETED) == 0)
		n -= DELETED; /* it was replaced since we were started */
	return mem_strndup(path, (size_t)n);
}

/* ---- what the program is given ---- */

/* A pipe with the key in it, which fits whole. -ENOENT: there is no key; another -errno: no pipe.
 */
static int key_pipe(const struct config_environment *e)
{
	int ends[2];

	if (!e || !e->api_key)
		return -ENOENT;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	ssize_t n = write(ends[1], e->api_key, strlen(e->api_key));
	int err = n < 0 ? -errno : n < (ssize_t)strlen(e->api_key) ? -EAGAIN : 0;
	close(ends[1]);
	if (err == 0)
		return ends[0];
	close(ends[0]);
	return err;
}

/* The environment as we found it, but for the key. */
static void restore_environment(const struct config_environment *e, int key_fd)
{
	char number[16];

	if (e && e->base_url)
		setenv("HPKV_BASE_URL", e->base_url, 1);
	if (key_fd < 0)
		return;
	snprintf(number, sizeof(number), "%d", key_fd);
	setenv("HPKVD_KEY_FD", number, 1);
	fcntl(key_fd, F_SETFD, 0);
}

static void block_only(const int *numbers, size_t n)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < n; i++)
		sigaddset(&set, numbers[i]);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

/* ---- would it start? ---- */

/* Our arguments with -t before them. */
static char **test_arguments(char *const *argv)
{
	size_t n = 0;

	while (argv[n])
		n++;
	char **all = mem_zalloc((n + 2) * sizeof(*all));
	all[0] = argv[0];
	all[1] = mem_strdup("-t");
	for (size_t i = 1; i < n; i++)
		all[i + 1] = argv[i];
	return all;
}

static void run_test(const struct restart_program *program, int words_fd)
{
	dup2(words_fd, STDOUT_FILENO);
	dup2(words_fd, STDERR_FILENO);
	fcntl(STDERR_FILENO, F_SETFL, 0);
	restore_environment(program->environment, key_pipe(program->environment));
	signal(SIGCHLD, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGUSR2, SIG_IGN); /* who signals all processes of a service or of a name means us */
	signal(SIGHUP, SIG_IGN);
	block_only(NULL, 0);
	execv(program->path, test_arguments(program->argv));
	dprintf(STDERR_FILENO, "%s: %s\n", program->path, strerror(errno));
	_exit(EXIT_FAILURE);
}

static void end_question(struct restart_question *q, bool ok, const char *why)
{
	restart_answer *answer = q->answer;
	void *owner = q->owner;

	restart_ask_free(q);
	answer(owner, ok, why);
}

static const char *why_not(pid_t ended, int status)
{
	if (ended > 0 && WIFSIGNALED(status))
		return "the program that would take over was ended by a signal when asked";
	return "the program that would take over does not accept its settings";
}

static void log_words(const struct restart_question *q)
{
	for (size_t at = 0; at < q->n;) {
		const char *line = q->words + at, *end = memchr(line, '\n', q->n - at);
		size_t n = end ? (size_t)(end - line) : q->n - at;
		if (n)
			log_error("%.*s", (int)n, line);
		at += n + 1;
	}
}

/* It says no more: it has ended, or will at once. */
static void on_step(evutil_socket_t fd, short what, void *arg)
{
	struct restart_question *q = arg;
	int status = 0;
	pid_t ended =
		q->words_fd < 0 || q->waited_ms >= ASK_MS ? waitpid(q->pid, &status, WNOHANG) : 0;

	(void)fd;
	(void)what;
	if (ended != 0) {
		q->pid = 0;
		bool ok = ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
		if (!ok)
			log_words(q);
		end_question(q, ok, why_not(ended, status));
		return;
	}
	q->waited_ms += WAIT_MS;
	if (q->waited_ms > ASK_MS) {
		end_question(
			q, false,
			"the program that would take over has not said in time whether it starts");
		return;
	}
	timer_start(q->step, WAIT_MS);
}

static void on_words(evutil_socket_t fd, short what, void *arg)
{
	struct restart_question *q = arg;
	char rest[512];
	size_t room = sizeof(q->words) - q->n;
	ssize_t n = room ? read(fd, q->words + q->n, room) : read(fd, rest, sizeof(rest));

	(void)what;
	if (n > 0 && room)
		q->n += (size_t)n;
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	event_free(q->readable);
	q->readable = NULL;
	close(q->words_fd);
	q->words_fd = -1;
}

static pid_t start_test(const struct restart_program *program, int ends[2])
{
	pid_t pid;

	if (!program->path) {
		errno = ENOENT;
		return -1;
	}
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	signal(SIGCHLD, SIG_DFL); /* we ask how this one ends */
	/* A signal to the child before its exec would be handled as one to us: both share the pipe
	 * into which our handlers write. */
	sigset_t all, before;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		run_test(program, ends[1]);
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(ends[1]);
	if (pid < 0)
		close(ends[0]);
	return pid;
}

static void on_no_test(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	end_question(arg, false, "the program can't be run");
}

struct restart_question *restart_ask(struct event_base *base, const struct restart_program *program,
				     restart_answer *answer, void *owner)
{
	struct restart_question *q = mem_zalloc(sizeof(*q));
	int ends[2] = {-1, -1};
	pid_t pid = start_test(program, ends);

	*q = (struct restart_question){
		.pid = pid > 0 ? pid : 0, .words_fd = -1, .answer = answer, .owner = owner};
	q->step = timer_new(base, pid > 0 ? on_step : on_no_test, q);
	if (pid <= 0) {
		timer_next_turn(q->step);
		return q;
	}
	q->words_fd = ends[0];
	q->readable = watch_new(base, q->words_fd, EV_READ | EV_PERSIST, on_words, q);
	if (watch_start(q->readable) < 0)
		q->waited_ms = ASK_MS; /* it is not heard, so it has not said yes */
	timer_start(q->step, WAIT_MS);
	return q;
}

void restart_ask_free(struct restart_question *q)
{
	if (!q)
		return;
	if (q->pid > 0) {
		kill(q->pid, SIGKILL);
		waitpid(q->pid, NULL, 0);
	}
	if (q->readable)
		event_free(q->readable);
	event_free(q->step);
	if (q->words_fd >= 0)
		close(q->words_fd);
	free(q);
	orphans_discard();
}

/* ---- the program takes our place ---- */

/* Copies above all places first, so that none of them is overwritten that is still to move. */
static int place_sockets(const struct restart_socket *sockets, size_t n, int *key_fd)
{
	int copies[RESTART_SOCKETS_MAX], above = FIRST_FD + (int)n;

	for (size_t i = 0; i < n; i++) {
		copies[i] = fcntl(sockets[i].fd, F_DUPFD_CLOEXEC, above);
		if (copies[i] < 0)
			return -errno;
	}
	if (*key_fd >= 0) {
		int copy = fcntl(*key_fd, F_DUPFD_CLOEXEC, above);
		if (copy < 0)
			return -errno;
		close(*key_fd);
		*key_fd = copy;
	}
	for (size_t i = 0; i < n; i++) {
		if (dup2(copies[i], FIRST_FD + (int)i) < 0) /* not close-on-exec */
			return -errno;
	}
	return 0;
}

static void name_sockets(const struct restart_socket *sockets, size_t n)
{
	char names[64 * RESTART_SOCKETS_MAX] = "", number[24];
	size_t at = 0;

	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%.60s", i ? ":" : "",
				       sockets[i].name);
	snprintf(number, sizeof(number), "%zu", n);
	setenv("LISTEN_FDS", number, 1);
	snprintf(number, sizeof(number), "%ld", (long)getpid());
	setenv("LISTEN_PID", number, 1);
	setenv("LISTEN_FDNAMES", names, 1);
}

/* Those that the next program handles wait until it does: its default would be to die of them. */
static void block_until_handled(void)
{
	static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};

	block_only(handled, sizeof(handled) / sizeof(handled[0]));
}

/* The program that would start a moment ago may be gone. Ours is still to be had. */
static int run_either(const struct restart_program *program)
{
	execv(program->path, program->argv);
	int err = -errno;
	log_error("%s can't be run: %s: the former program starts again", program->path,
		  strerror(-err));
	execv(self, program->argv);
	return err;
}

int restart_now(const struct restart_program *program, const char *own_socket,
		const struct restart_socket *sockets, size_t n)
{
	if (!program->path || n > RESTART_SOCKETS_MAX)
		return -EINVAL;
	int key_fd = key_pipe(program->environment);
	if (key_fd < 0 && key_fd != -ENOENT)
		return key_fd;
	int err = log_stay_above(FIRST_FD + (int)n);
	if (err == 0)
		err = place_sockets(sockets, n, &key_fd);
	if (err < 0)
		return err;
	name_sockets(sockets, n);
	if (own_socket)
		setenv("HPKVD_OWN_SOCKET", own_socket, 1);
	restore_environment(program->environment, key_fd);
	block_until_handled();
	return run_either(program);
}
