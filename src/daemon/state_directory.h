/* state_directory.h - what outlives the process: small files in the first directory that
 * $STATE_DIRECTORY names, as systemd's StateDirectory= sets it. Only our user may read them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* The directory, opened; -ENOENT: none is named. */
int state_directory_open(void);

/* Writes the file, whole or not at all. durable: waits until the disk has it. 0 or -errno. */
int state_directory_write(int directory, const char *name, const void *bytes, size_t n,
			  bool durable);
