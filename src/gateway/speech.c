#include "gateway/speech.h"

struct span speech_line(const struct speech *s)
{
	struct iovec first;

	if (outq_iov(&s->peer->out, &first, 1) == 0)
		return (struct span){0};
	const char *end = memchr(first.iov_base, '\n', first.iov_len);
	size_t n = end ? (size_t)(end - (const char *)first.iov_base) + 1 : first.iov_len;
	return (struct span){first.iov_base, n};
}

void speech_free(struct speech *s)
{
	if (!s)
		return;
	speech_free(s->next);
	s->next = NULL;
	buf_release(&s->rest);
	outq_fini(&s->out);
	s->ops->free(s);
}
