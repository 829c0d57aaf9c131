#include "supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/backoff.h"
#include "base/mem.h"
#include "visible.h"
#include "signals.h"

enum {
	CALM_MS = 500, /* without a further change, before the command is told */
	FIRST_PAUSE_MS = 1000,
	LONGEST_PAUSE_MS = 60000, /* between starts; one that runs so long begins anew */
};

struct supervisor {
	struct cli *c;
	const struct supervisor_options *o;
	struct live live;
	struct environment now;  /* the command's, or what it was told of last */
	struct environment next; /* what it is to be started with */
	bool changed;            /* next is another */
	unsigned version;        /* of live's, as far as it was looked at */
	long long looked;        /* when that was */
	int signals;             /* a descriptor */
	sigset_t before;         /* what was blocked before */
	pid_t pid;               /* 0: it does not run */
	long long started, kill_at;
	unsigned restarts; /* one soon after the other */
	bool stopping;     /* it is to end, and to be started again */
	bool ending;       /* it is to end, and that is it */
	int status;        /* exit status, -1: not yet */
};

int supervisor_not_started(const char *command, int error)
{
	cli_say("exec: %s: %s", visible_name(hpkv_str(command)), strerror(error));
	return error == ENOENT ? 127 : 126;
}

/* ---- the command ---- */

static void start(struct supervisor *s)
{
	char **environment = environment_join(&s->next);
	posix_spawnattr_t attributes;

	int error = posix_spawnattr_init(&attributes);
	if (!error) {
		posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
		posix_spawnattr_setsigmask(&attributes, &s->before);
		error = posix_spawnp(&s->pid, s->o->argv[0], NULL, &attributes, s->o->argv,
				     environment);
		posix_spawnattr_destroy(&attributes);
	}
	free(environment);
	if (error) {
		s->pid = 0;
		s->status = supervisor_not_started(s->o->argv[0], error);
		return;
	}
	environment_free(&s->now);
	s->now = s->next;
	s->next = (struct environment){0};
	s->changed = s->stopping = false;
	s->started = cli_now_ms();
	s->kill_at = -1;
}

static void stop(struct supervisor *s)
{
	cli_say("exec: values have changed: starting %s again",
		visible_name(hpkv_str(s->o->argv[0])));
	s->stopping = true;
	s->restarts = cli_now_ms() - s->started < LONGEST_PAUSE_MS ? s->restarts + 1 : 0;
	s->kill_at = cli_now_ms() + s->o->grace_ms;
	kill(s->pid, SIGTERM);
	kill(s->pid, SIGCONT); /* one that is stopped does not see it otherwise */
}

/* hpkv ends by the command's signal, without a core file of its own. */
static _Noreturn void end_as_command(int number)
{
	setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	signals_end(number);
}

static void ended(struct supervisor *s, int status)
{
	s->pid = 0;
	if (s->stopping && !s->ending)
		start(s);
	else if (WIFSIGNALED(status))
		end_as_command(WTERMSIG(status));
	else
		s->status = WEXITSTATUS(status);
}

/* Whatever has ended, be it an orphan. */
static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->pid)
			ended(s, status);
	}
}

/* ---- signals ---- */

static void on_signal(struct supervisor *s, const struct signalfd_siginfo *info)
{
	int number = (int)info->ssi_signo;

	if (number == SIGCHLD) {
		reap(s);
		return;
	}
	if (number == SIGTERM || number == SIGINT || number == SIGQUIT)
		s->ending = true;
	if (!s->pid && signals_is_ending(number))
		signals_end(number); /* there is no command yet to pass it to */
	if (!s->pid)
		return;
	if (info->ssi_code != SI_KERNEL) {
		kill(s->pid, number);
		if (s->ending)
			kill(s->pid, SIGCONT);
	}
}

static void read_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (s->status < 0 && read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		on_signal(s, &info);
}

static bool begin_signals(struct supervisor *s)
{
	sigset_t awaited;

	signals_passed(&awaited);
	sigaddset(&awaited, SIGCHLD);
	sigprocmask(SIG_BLOCK, &awaited, &s->before);
	signal(SIGCHLD, SIG_DFL);
	s->signals = signalfd(-1, &awaited, SFD_NONBLOCK | SFD_CLOEXEC);
	if (s->signals < 0)
		cli_say("exec: no signals: %s", strerror(errno));
	return s->signals >= 0;
}

/* ---- values ---- */

static bool make_environment(struct supervisor *s, struct environment *e)
{
	char why[ENVIRONMENT_WHY_MAX];
	size_t n;
	struct live_record **list = live_list(&s->live, &n);
	struct hpkv_record *records = mem_alloc((n + 1) * sizeof(*records));

	for (size_t i = 0; i < n; i++) {
		records[i].key = (struct hpkv_bytes){list[i]->key, list[i]->key_n};
		records[i].value = (struct hpkv_bytes){list[i]->value, list[i]->n};
	}
	bool made = environment_make(e, &s->o->environment, records, n, why);
	if (!made)
		cli_say("exec: %s%s", why, s->pid ? "; the command keeps its values" : "");
	free(records);
	free(list);
	return made;
}

static void look(struct supervisor *s)
{
	struct environment fresh;

	if (!live_is_ready(&s->live) || (s->version == s->live.version && s->looked))
		return;
	s->version = s->live.version;
	s->looked = cli_now_ms();
	if (!make_environment(s, &fresh)) {
		environment_free(&fresh);
		if (!s->started)
			s->status = CLI_USAGE;
		return;
	}
	environment_free(&s->next);
	s->next = fresh;
	s->changed = s->pid && !environment_equal(&s->now, &s->next);
	if (!s->started)
		start(s);
}

/* When a change takes effect, in ms from now; -1: there is none. */
static int change_due(const struct supervisor *s)
{
	long long at = s->looked + CALM_MS, pause = 0;

	if (!s->changed || s->stopping || s->ending || !s->pid)
		return -1;
	if (!s->o->signal && s->restarts)
		pause = backoff_doubled(FIRST_PAUSE_MS, s->restarts - 1, LONGEST_PAUSE_MS);
	if (at < s->started + pause)
		at = s->started + pause;
	return (int)cli_left_ms(at);
}

static void tell_change(struct supervisor *s)
{
	if (!s->o->signal) {
		stop(s);
		return;
	}
	environment_free(&s->now);
	s->now = s->next;
	s->next = (struct environment){0};
	s->changed = false;
	kill(s->pid, s->o->signal);
}

/* ---- all of it ---- */

static int sooner(int ms, int other)
{
	return other >= 0 && (ms < 0 || other < ms) ? other : ms;
}

/* Does what is due; how long there is nothing more. */
static int step(struct supervisor *s)
{
	int ms = live_step(&s->live);

	look(s);
	if (s->live.status && !s->started)
		s->status = s->live.status;
	if (s->live.status) /* no more changes are told; the command goes on */
		ms = -1;
	if (change_due(s) == 0)
		tell_change(s);
	ms = sooner(ms, change_due(s));
	if (s->stopping && s->pid && s->kill_at >= 0 && cli_left_ms(s->kill_at) == 0) {
		kill(s->pid, SIGKILL);
		s->kill_at = -1;
	}
	return s->stopping && s->kill_at >= 0 ? sooner(ms, (int)cli_left_ms(s->kill_at)) : ms;
}

int supervise(struct cli *c, const struct supervisor_options *options)
{
	char glob[HPKV_KEY_MAX + 2];
	static struct supervisor s;

	s = (struct supervisor){.c = c, .o = options, .status = -1, .kill_at = -1};
	if (!begin_signals(&s))
		return CLI_USAGE;
	const char *prefix = options->environment.prefix;
	if (prefix)
		strcpy(stpcpy(glob, prefix), "*");
	live_begin(&s.live, c, prefix ? glob : NULL, options->environment.object, true);
	while (s.status < 0) {
		int ms = step(&s);
		if (s.status >= 0)
			break;
		struct pollfd p[2] = {{.fd = hpkv_fd(c->hpkv), .events = POLLIN},
				      {.fd = s.signals, .events = POLLIN}};
		poll(p, 2, ms);
		read_signals(&s);
		hpkv_process(c->hpkv);
	}
	live_end(&s.live);
	close(s.signals);
	environment_free(&s.now);
	environment_free(&s.next);
	return s.status;
}
