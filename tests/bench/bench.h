/* bench.h - what the benchmark's tools share: dying, time, what a process has used, sockets by
 * name.
 *
 * The tools of this directory are measuring instruments. They hold no promise towards hostile
 * peers: they meet only each other, the daemon under test and, for comparison, redis, twemproxy and
 * mosquitto. What they can't do they die of, with a sentence. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What every key holds: 100 bytes, about what people measure such services with. */
#define BENCH_TEN_BYTES "0123456789"
#define BENCH_VALUE                                                                                \
	BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES            \
		BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES BENCH_TEN_BYTES

enum { BENCH_KEY = 13 }; /* bytes of a key's name, without its NUL */

/* What the key of a number is called; after ten million the names begin anew. */
void bench_key(char name[BENCH_KEY + 1], size_t number);

_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A whole number within bounds, from the command line; dies of anything else, naming the option. */
long bench_number(const char *option, const char *text, long min, long max);

int64_t bench_now_ns(void);      /* never jumps */
int64_t bench_cpu_ns(pid_t pid); /* user and system time of all its threads so far */
int64_t bench_memory(pid_t pid); /* bytes of anonymous memory that are resident: heap and stacks */
void bench_raise_descriptor_limit(void);

/* A name with a slash is a Unix socket's path, any other is PORT on 127.0.0.1. Listening sockets do
 * not block; what bench_connect() returns does, until somebody changes that. */
int bench_listen(const char *name);
int bench_accept(int listener); /* -1: nobody is there */
int bench_connect(const char *name);
unsigned bench_port(int fd);
