#include "base/overflow_ids.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { USUAL_ID = 65534 };

static unsigned read_id(const char *path)
{
	char text[24];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0 || text[0] < '0' || text[0] > '9')
		return USUAL_ID;
	text[n] = '\0';
	errno = 0;
	unsigned long id = strtoul(text, NULL, 10);
	return errno || id > UINT32_MAX ? USUAL_ID : (unsigned)id;
}

struct overflow_ids overflow_ids_ids(void)
{
	return (struct overflow_ids){read_id("/proc/sys/kernel/overflowuid"),
				     read_id("/proc/sys/kernel/overflowgid")};
}
