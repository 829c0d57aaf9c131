#include "base/secret.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

/* At the beginning of the pages; the text follows. */
struct head {
	size_t mapped;
	unsigned holders;
};

static struct head *head_of(const char *secret)
{
	return (struct head *)(uintptr_t)(secret - sizeof(struct head));
}

char *secret_alloc(size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t mapped = (sizeof(struct head) + n + page - 1) / page * page;
	void *pages =
		mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED) {
		log_error("out of memory: %zu bytes were refused", mapped);
		abort();
	}
	/* Failures of both are not reported here: secret_check() reports them once. */
	mlock(pages, mapped);
	madvise(pages, mapped, MADV_DONTDUMP);
	*(struct head *)pages = (struct head){.mapped = mapped, .holders = 1};
	return (char *)pages + sizeof(struct head);
}

char *secret_dupn(const char *text, size_t n)
{
	char *copy = secret_alloc(n + 1);

	if (n)
		memcpy(copy, text, n);
	return copy;
}

char *secret_dup(const char *text)
{
	return secret_dupn(text, strlen(text));
}

char *secret_share(const char *secret)
{
	struct head *head = head_of(secret);

	head->holders++;
	return (char *)(head + 1);
}

void secret_free(char **secret)
{
	if (!*secret)
		return;
	struct head *head = head_of(*secret);
	size_t mapped = head->mapped;

	*secret = NULL;
	if (--head->holders)
		return;
	mem_wipe(head, mapped);
	munmap(head, mapped);
}

int secret_check(void)
{
	char *probe = secret_alloc(1);
	int err = mlock(probe, 1) < 0 ? -errno : 0;

	secret_free(&probe);
	return err;
}
