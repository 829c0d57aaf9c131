#include "address.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const char scheme[] = "unix:";

int hpkv_address_read(const char *text, struct sockaddr_un *address, socklen_t *n)
{
	if (strncmp(text, scheme, sizeof(scheme) - 1) == 0)
		text += sizeof(scheme) - 1;
	size_t length = strlen(text);
	int abstract = text[0] == '@';
	if (length == 0 || (abstract && length == 1))
		return -EINVAL;
	/* A path needs a NUL behind it, an abstract name one before it, in place of the @. */
	if (length + !abstract > sizeof(address->sun_path))
		return -ENAMETOOLONG;
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(address->sun_path, text, length);
	if (abstract)
		address->sun_path[0] = '\0';
	*n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + !abstract);
	return 0;
}

const char *hpkv_address_fault(int error)
{
	switch (error) {
	case EAGAIN:
		return "it accepts none at the moment";
	case EINVAL:
		return "there is no name in it";
	case ENAMETOOLONG:
		return "it is too long: a socket's path has at most 107 bytes, and so has the "
		       "name behind an @";
	default:
		return strerror(error);
	}
}
