/* orphans.h - child processes that this program has not started.
 *
 * A program may inherit children: the first process of a container (process 1) becomes the parent
 * of each process whose own parent has ended ("podman exec" leaves such), and a shell may have had
 * children before it became this program by exec. An ended child stays as a zombie until its parent
 * reaps it. */
#pragma once

/* Reaps those that have ended; from now on the kernel keeps no ended child. Code that starts
 * children and waits for them sets SIGCHLD to SIG_DFL meanwhile. */
void orphans_discard(void);
