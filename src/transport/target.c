#include "transport/target.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* No byte that would end the header line it stands in, or the word. */
static bool printable(const char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s <= ' ' || *s == 0x7f)
			return false;
	}
	return true;
}

const char *target_objection(const struct websocket_target *t)
{
	if (!*t->host || strlen(t->host) > TARGET_HOST_MAX || !printable(t->host))
		return "the host name is empty, too long or has blanks in it";
	if (*t->path != '/' || !printable(t->path))
		return "the path is invalid";
	if (strlen(t->path) > TARGET_PATH_MAX)
		return "the path is too long";
	return NULL;
}

char *target_host_port(const char *host, unsigned port, unsigned usual)
{
	bool v6 = strchr(host, ':');
	char text[TARGET_HOST_MAX + sizeof("[]:65535")], number[sizeof(":65535")] = "";

	if (port != usual)
		snprintf(number, sizeof(number), ":%u", port & UINT16_MAX);
	snprintf(text, sizeof(text), "%s%s%s%s", v6 ? "[" : "", host, v6 ? "]" : "", number);
	return mem_strdup(text);
}
