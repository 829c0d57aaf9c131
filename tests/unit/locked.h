/* locked.h - how much memory this process has locked: secrets lie there (secret.h), so a test sees
 * whether one is left. Always 0 where no memory may be locked, and with sanitizers. */
#pragma once

#include <stdio.h>

static inline long locked_kb(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	char line[200];
	long kb = 0;

	assert_non_null(status);
	while (fgets(line, sizeof(line), status))
		sscanf(line, "VmLck: %ld", &kb);
	fclose(status);
	return kb;
}
