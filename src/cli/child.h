/* child.h - runs a shell command to its end.
 *
 * hpkv waits for the command and does nothing else. A signal that would end hpkv is passed on to
 * the command, which has GRACE_MS to end before it is killed. hpkv then ends by that signal.
 *
 * The command has a process group of its own, so that all of its processes get the signal, and
 * stops together with hpkv (SIGTSTP). When hpkv is a job of a terminal, the command stays in hpkv's
 * process group: it may read from the terminal, and gets Ctrl-C and Ctrl-Z from there. */
#pragma once

/* Runs sh -c command with this environment and with the descriptor input as its stdin. 0: the
 * command has ended, *status is as from waitpid(). -errno: it could not be started. */
int child_run(const char *command, char **environment, int input, int *status);
