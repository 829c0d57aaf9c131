#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "base/orphans.h"
#include "signals.h"

enum { GRACE_MS = 5000, KILLED_MS = 1000 };

struct child {
	pid_t pid;
	bool own_group;
	bool ended;
	int status;
	sigset_t awaited; /* blocked while the command runs, and read one by one */
	sigset_t before;  /* the signal mask before */
};

/* ---- start ---- */

static bool has_terminal(void)
{
	int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool is_ignored(int number)
{
	struct sigaction now;

	return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

/* Blocks the signals that end hpkv, and SIGCHLD, which tells of ended children: next_signal() reads
 * them. */
static void expect(struct child *ch)
{
	signals_ending(&ch->awaited);
	sigaddset(&ch->awaited, SIGCHLD);
	if (ch->own_group && !is_ignored(SIGTSTP))
		sigaddset(&ch->awaited, SIGTSTP);
	sigprocmask(SIG_BLOCK, &ch->awaited, &ch->before);
	signal(SIGCHLD, SIG_DFL);
}

static int start(struct child *ch, const char *command, char **environment, int input)
{
	char *argv[] = {(char *)(size_t) "sh", (char *)(size_t) "-c", (char *)(size_t)command,
			NULL};
	short flags = POSIX_SPAWN_SETSIGMASK | (ch->own_group ? POSIX_SPAWN_SETPGROUP : 0);
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;

	int error = posix_spawnattr_init(&attributes);
	if (error)
		return -error;
	error = posix_spawn_file_actions_init(&files);
	if (!error) {
		error = posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
		posix_spawnattr_setflags(&attributes, flags);
		posix_spawnattr_setsigmask(&attributes, &ch->before);
		posix_spawnattr_setpgroup(&attributes, 0);
		if (!error)
			error = posix_spawn(&ch->pid, "/bin/sh", &files, &attributes, argv,
					    environment);
		posix_spawn_file_actions_destroy(&files);
	}
	posix_spawnattr_destroy(&attributes);
	return -error;
}

/* ---- end ---- */

/* Reaps all ended children, orphans included. Returns whether the command has ended. */
static bool reap(struct child *ch)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == ch->pid && !ch->ended) {
			ch->ended = true;
			ch->status = status;
		}
	}
	return ch->ended;
}

static void forget(struct child *ch)
{
	orphans_discard();
	sigprocmask(SIG_SETMASK, &ch->before, NULL);
}

/* ---- termination by a signal ---- */

/* Sends a signal to all children of this process. They are known from /proc; without it there are
 * none. Returns how many there are. */
static unsigned signal_children(int number)
{
	char path[64];
	unsigned n = 0;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	FILE *f = fopen(path, "re");
	while (f && fscanf(f, "%d", &pid) == 1) {
		kill(pid, number);
		kill(pid, SIGCONT); /* a stopped process would not see the signal otherwise */
		n++;
	}
	if (f)
		fclose(f);
	return n;
}

static void pass_on(const struct child *ch, int number)
{
	if (ch->own_group) {
		kill(-ch->pid, number);
		kill(-ch->pid, SIGCONT);
	} else if (!ch->ended) {
		kill(ch->pid, number);
		kill(ch->pid, SIGCONT);
	}
}

/* Is a process of the command left? Orphans of the command are our children now; one outside the
 * command's group gets the signal here. */
static bool remains(struct child *ch, int number)
{
	bool ended = reap(ch);

	if (ch->own_group)
		return kill(-ch->pid, 0) == 0;
	return !ended || signal_children(number) > 0;
}

/* Waits for the next signal, at most ms. 0: the time is up, or there was none. */
static int next_signal(const struct child *ch, long long ms)
{
	struct timespec most = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	int number = sigtimedwait(&ch->awaited, NULL, &most);

	return number > 0 && number != SIGCHLD && number != SIGTSTP ? number : 0;
}

/* from_terminal: the whole job has received the signal; what the command keeps in the background is
 * meant to go on. */
static _Noreturn void end_by(struct child *ch, int number, bool from_terminal)
{
	long long until = cli_now_ms() + GRACE_MS;
	bool killed = false;

	if (!from_terminal) {
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		pass_on(ch, number);
	}
	while (from_terminal ? !reap(ch) : remains(ch, killed ? SIGKILL : number)) {
		long long left = cli_left_ms(until);
		if (left == 0 && killed)
			break; /* the process is stuck in the kernel */
		if (left == 0) {
			killed = true;
			until = cli_now_ms() + KILLED_MS;
			pass_on(ch, SIGKILL);
			continue;
		}
		int again = next_signal(ch, left);
		if (again && !from_terminal)
			pass_on(ch, again);
	}
	signals_end(number);
}

/* Stops together with the command, and continues it afterwards. If the kernel does not let this
 * process stop, the command continues at once. */
static void stop_with(const struct child *ch)
{
	sigset_t set;

	kill(-ch->pid, SIGTSTP);
	kill(getpid(), SIGTSTP);
	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	kill(-ch->pid, SIGCONT);
}

int child_run(const char *command, char **environment, int input, int *status)
{
	struct child ch = {.own_group = !has_terminal()};
	siginfo_t info;

	expect(&ch);
	int error = start(&ch, command, environment, input);
	while (!error && !reap(&ch)) {
		int number = sigwaitinfo(&ch.awaited, &info);
		if (number == SIGTSTP)
			stop_with(&ch);
		else if (number > 0 && number != SIGCHLD)
			end_by(&ch, number, !ch.own_group && info.si_code == SI_KERNEL);
	}
	forget(&ch);
	if (!error)
		*status = ch.status;
	return error;
}
