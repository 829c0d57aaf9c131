#include "reasons.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_AFTER_MAX_S = 86400 };

const char *reasons_of_errno(int err)
{
	switch (err) {
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EPIPE:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case EADDRNOTAVAIL:
	case EAFNOSUPPORT:
	case EACCES:
	case EPERM:
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		return strerror(err);
	default:
		return NULL;
	}
}

/* The library's phrases that a reader of our log should not have to decipher. */
static const struct {
	const char *theirs, *ours;
} phrases[] = {
	{"read failed", "the connection was closed before the upgrade was answered"},
	{"Peer hung up", "the connection was closed before the upgrade was answered"},
	{"closed before established", "the connection was closed before the upgrade was answered"},
	{"Closed before conn", "the connection was closed before the upgrade was answered"},
	{"problems parsing header", "the answer to the upgrade is not HTTP"},
	{"HS: URI missing", "the answer to the upgrade is not HTTP"},
	{"HS: ACCEPT missing", "the answer to the upgrade lacks Sec-WebSocket-Accept"},
	{"HS: Accept hash wrong", "the answer to the upgrade has a wrong Sec-WebSocket-Accept"},
	{"HS: UPGRADE missing", "the answer to the upgrade lacks Upgrade"},
	{"HS: Upgrade to something other than websocket",
	 "the answer is an upgrade to something else"},
	{"HS: UPGRADE malformed", "the answer to the upgrade has a wrong Connection header"},
	{"HS: EXT: unknown ext",
	 "the answer to the upgrade names an extension that was not offered"},
	{"HS: PROTOCOL malformed",
	 "the answer to the upgrade names a subprotocol that was not offered"},
};

const char *reasons_translate(const char *theirs, size_t n)
{
	for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
		size_t length = strlen(phrases[i].theirs);
		if (n >= length && memcmp(theirs, phrases[i].theirs, length) == 0)
			return phrases[i].ours;
	}
	return NULL;
}

int reasons_retry_after(const char *text, time_t now)
{
	char *end;
	struct tm tm = {0};
	long seconds = strtol(text, &end, 10);

	if (end == text && strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		seconds = (long)(timegm(&tm) - now);
	else if (end == text || *end)
		return -1;
	return seconds < 0 ? 0 : seconds > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : (int)seconds;
}
