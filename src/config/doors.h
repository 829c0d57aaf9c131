/* doors.h - who may come in beside the socket's lines: HTTP on TCP, local keys, web pages, Nexus.
 */
#pragma once

#include "config/draft.h"

/* "HOST:PORT" of this machine alone: the numeric address, to be freed; NULL: it is no such thing.
 * An IPv6 address stands in brackets. */
char *doors_loopback(const char *text, uint16_t *port);

/* The key of a section of access rules. False: there is none, which is reported. */
bool doors_section_key(struct draft *d, unsigned line, const char *section, const char *file,
		       struct local_key *key);

/* Once the file is read, and the service's own key. */
void doors_resolve(struct draft *d);
void doors_release(struct draft *d); /* frees draft::keys */
