#include "service/process.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static double cpu_seconds(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage) < 0)
		return NAN;
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void memory(struct stats_gauges *g)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long size, resident;

	g->process_virtual_memory_bytes = g->process_resident_memory_bytes = NAN;
	if (!f)
		return;
	if (fscanf(f, "%llu %llu", &size, &resident) == 2) {
		double page = (double)sysconf(_SC_PAGESIZE);
		g->process_virtual_memory_bytes = (double)size * page;
		g->process_resident_memory_bytes = (double)resident * page;
	}
	fclose(f);
}

/* Since Linux 6.2 the size of the folder is their number; older kernels show 0. */
static double open_fds(void)
{
	struct stat st;
	double n = -3; /* . and .. and the folder itself */

	if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
		return (double)st.st_size;
	DIR *folder = opendir("/proc/self/fd");
	if (!folder)
		return NAN;
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

static double max_fds(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return NAN;
	return (double)limit.rlim_cur;
}

void process_figures(int64_t started_wall_ms, struct stats_gauges *g)
{
	g->process_start_time_seconds = (double)started_wall_ms / 1000;
	g->process_cpu_seconds_total = cpu_seconds();
	g->process_open_fds = open_fds();
	g->process_max_fds = max_fds();
	memory(g);
}
