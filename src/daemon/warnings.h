/* warnings.h - log lines about a configuration that is valid but unwise. */
#pragma once

#include "config/config.h"

/* Logs them at the start, when before is NULL, and after a reload. */
void warnings_of_settings(const struct config *config, const struct config *before);
/* socket: the path that clients find it at. */
void warnings_of_socket(const char *socket, const struct config *config);
/* The key's memory could not be locked. */
void warnings_of_swap(void);
/* $STATE_DIRECTORY names a directory that can't be used. */
void warnings_of_state(void);
