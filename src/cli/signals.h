/* signals.h - termination by signals, and orphans.
 *
 * Process 1 of a container is special: the kernel drops a signal that would end it unless there is
 * a handler, and makes it the parent of all orphans. hpkv ends there with status 128 plus the
 * signal's number, which is how a shell shows an end by a signal. */
#pragma once

#include <signal.h>
#include <stdbool.h>

/* Makes signals end hpkv also as process 1, and lets ended children leave no zombies. */
void signals_begin(void);

/* The signals that end a program by default, except those that hpkv inherited as ignored. */
void signals_ending(sigset_t *set);

/* The signals that a parent passes on to its command: these, and others that programs give a
 * meaning of their own (SIGWINCH, SIGALRM, SIGPWR, SIGIO, those of real time). Not those that the
 * kernel sends for what hpkv itself does, nor those that stop a job. */
void signals_passed(sigset_t *set);

/* Does the signal end a program by default? */
bool signals_is_ending(int number);

/* Installs a handler for the signals that end a program. */
void signals_catch(void (*handler)(int number));

/* Ends hpkv as if by this signal. Safe in a signal handler. */
_Noreturn void signals_end(int number);
