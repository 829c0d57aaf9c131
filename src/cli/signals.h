/* signals.h - ends by signals, and children that nobody asked for.
 *
 * The first process of a container (process 1) differs from others: the kernel ignores each signal
 * that would end it, unless there is a handler, and makes it the parent of all orphans. hpkv ends
 * there with 128 and the signal's number, which is how a shell writes an end by a signal. */
#pragma once

#include <signal.h>

/* From now on signals end hpkv also as process 1, and children that end leave nothing behind. */
void signals_begin(void);

/* The signals that end a program as it is, but for those that the caller of hpkv has told it to
 * ignore. */
void signals_ending(sigset_t *set);

/* Sets a handler for all of these. */
void signals_catch(void (*handler)(int number));

/* Ends as by this signal. May be called in a handler. */
_Noreturn void signals_end(int number);
