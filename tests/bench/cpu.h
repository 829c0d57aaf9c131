/* cpu.h - the CPU time that processes use while something is measured. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { CPU_WATCHED_MAX = 8 };

struct cpu {
	struct cpu_process {
		const char *name;
		pid_t pid;
		int64_t from, to;
	} of[CPU_WATCHED_MAX];
	size_t n;
};

/* NAME=PID from the command line, which it changes and keeps; 0 is the caller. false: it is none,
 * or one too many. */
bool cpu_watch(struct cpu *c, char *argument);
void cpu_begin(struct cpu *c);
void cpu_end(struct cpu *c);

/* Prints a JSON object: under each name the microseconds for each of n. */
void cpu_print(const struct cpu *c, double n);
