#include "cpu.h"

#include <stdio.h>
#include <string.h>

#include "bench.h"

bool cpu_watch(struct cpu *c, char *argument)
{
	char *equals = strchr(argument, '=');

	if (!equals || c->n == CPU_WATCHED_MAX)
		return false;
	*equals = 0;
	c->of[c->n++] = (struct cpu_process){
		argument, (pid_t)bench_number("cpu-of", equals + 1, 0, INT32_MAX), 0, 0};
	return true;
}

void cpu_begin(struct cpu *c)
{
	for (size_t i = 0; i < c->n; i++)
		c->of[i].from = bench_cpu_ns(c->of[i].pid);
}

void cpu_end(struct cpu *c)
{
	for (size_t i = 0; i < c->n; i++)
		c->of[i].to = bench_cpu_ns(c->of[i].pid);
}

void cpu_print(const struct cpu *c, double n)
{
	putchar('{');
	for (size_t i = 0; i < c->n; i++)
		printf("%s\"%s\":%.3f", i ? "," : "", c->of[i].name,
		       (double)(c->of[i].to - c->of[i].from) / 1e3 / n);
	putchar('}');
}
