/* orphans.h - children that a program has not started.
 *
 * A program inherits some: the first process of a container (process 1) becomes the parent of each
 * process whose own parent has ended ("podman exec" leaves such), and a shell may have had children
 * before it became this program. One that has ended stays as a zombie until its parent asks. */
#pragma once

/* Frees those that have ended; from now on the kernel keeps none that ends. Who starts children of
 * its own, and wants to know how they end, sets SIGCHLD to SIG_DFL for that time. */
void orphans_discard(void);
