/* learned_pace.h - the pace that was learned from the service's 429s, over a restart.
 *
 * An orderly end leaves it in the file "pace" of the state directory (state_file.h), with the time;
 * the next start takes it from there within a minute: it describes a limit at that time. Without a
 * state directory, or with a file that makes no sense, the pace is learned anew. */
#pragma once

struct router;

void learned_pace_keep(const struct router *r);
void learned_pace_take(struct router *r);
