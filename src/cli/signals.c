#include "signals.h"

#include <unistd.h>

#include "base/orphans.h"

static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
static const int others[] = {SIGWINCH, SIGALRM, SIGPWR, SIGIO};

enum {
	N_ENDING = sizeof(ending) / sizeof(ending[0]),
	N_OTHERS = sizeof(others) / sizeof(others[0])
};

static void add(sigset_t *set, int number)
{
	struct sigaction now;

	if (sigaction(number, NULL, &now) == 0 && now.sa_handler != SIG_IGN)
		sigaddset(set, number);
}

void signals_ending(sigset_t *set)
{
	sigemptyset(set);
	for (unsigned i = 0; i < N_ENDING; i++)
		add(set, ending[i]);
}

void signals_passed(sigset_t *set)
{
	signals_ending(set);
	for (unsigned i = 0; i < N_OTHERS; i++)
		add(set, others[i]);
	for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
		add(set, number);
}

bool signals_is_ending(int number)
{
	return number != SIGWINCH;
}

void signals_catch(void (*handler)(int number))
{
	struct sigaction action = {.sa_handler = handler};
	sigset_t set;

	signals_ending(&set);
	for (unsigned i = 0; i < N_ENDING; i++) {
		if (sigismember(&set, ending[i]) == 1)
			sigaction(ending[i], &action, NULL);
	}
}

void signals_begin(void)
{
	orphans_discard();
	if (getpid() == 1)
		signals_catch(signals_end);
}

void signals_end(int number)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t set;

	sigaction(number, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	kill(getpid(), number);
	_exit(128 + number); /* process 1: the kernel has dropped the signal */
}
