/* child.h - a command in a shell, from its start to its end.
 *
 * hpkv waits for it and does nothing else. A signal that ends hpkv meanwhile is passed on: the
 * command has GRACE_MS to end, then it is killed, and then hpkv ends by that signal.
 *
 * The command has a process group of its own, so that all of its processes get the signal, and
 * stops with hpkv (SIGTSTP). Not so when hpkv is a job of a terminal: the command is part of that
 * job then, may read from the terminal, and gets Ctrl-C and Ctrl-Z from there itself.
 */
#pragma once

/* Runs sh -c command with this environment and with input, a descriptor, as its stdin. 0: it has
 * ended, *status is as of waitpid(). -errno: it could not be started. */
int child_run(const char *command, char **environment, int input, int *status);
