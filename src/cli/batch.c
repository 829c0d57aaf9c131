#include "batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { AT_ONCE = 200 };

/* An answer that came out of order. */
struct slot {
	bool done;
	struct hpkv_answer answer; /* a deep copy, owned */
	struct batch *batch;
	int index;
};

struct batch {
	struct cli *c;
	char **keys;
	batch_fn *each;
	struct slot slots[AT_ONCE];
	int next; /* the key whose answer is passed on next */
	int sent;
	int status;
};

static struct hpkv_bytes copy(struct hpkv_bytes bytes)
{
	return (struct hpkv_bytes){bytes.p ? mem_strndup(bytes.p, bytes.n) : NULL, bytes.n};
}

static void drop(struct hpkv_answer *a)
{
	free((char *)(size_t)a->value.p);
	free((char *)(size_t)a->line.p);
	free((char *)(size_t)a->error);
	free((char *)(size_t)a->reason);
}

static void hand_on(struct batch *b, const struct hpkv_answer *answer)
{
	int status = b->each(b->c, hpkv_str(b->keys[b->next++]), answer);

	if (status > b->status)
		b->status = status;
}

static void on_answer(void *arg, const struct hpkv_answer *answer)
{
	struct slot *slot = arg;
	struct batch *b = slot->batch;

	if (slot->index != b->next) {
		slot->done = true;
		slot->answer = *answer;
		slot->answer.value = copy(answer->value);
		slot->answer.line = copy(answer->line);
		slot->answer.error = mem_strdup(answer->error);
		slot->answer.reason = mem_strdup(answer->reason);
		return;
	}
	hand_on(b, answer);
	for (struct slot *s; b->next < b->sent && (s = &b->slots[b->next % AT_ONCE])->done;) {
		hand_on(b, &s->answer);
		s->done = false;
		drop(&s->answer);
	}
}

static void send_one(struct batch *b, enum hpkv_op op)
{
	struct hpkv_request q = {.op = op,
				 .key = hpkv_str(b->keys[b->sent]),
				 .fresh = op == HPKV_GET && b->c->opt[BATCH_FRESH] != NULL};
	struct slot *slot = &b->slots[b->sent % AT_ONCE];

	*slot = (struct slot){.batch = b, .index = b->sent++};
	int result = hpkv_send(b->c->hpkv, &q, on_answer, slot);
	if (result) {
		struct hpkv_answer failed = {.result = (enum hpkv_result)result,
					     .error = hpkv_error(b->c->hpkv),
					     .reason = "",
					     .retry_after_ms = -1};
		on_answer(slot, &failed);
	}
}

int batch_run(struct cli *c, enum hpkv_op op, int n, char **keys, batch_fn *each)
{
	struct batch b = {.c = c, .keys = keys, .each = each};

	while (b.next < n) {
		/* Without a daemon, one error is enough. */
		while (b.sent < n && b.sent - b.next < AT_ONCE && b.status != CLI_NO_DAEMON)
			send_one(&b, op);
		if (b.next == b.sent)
			break;
		hpkv_wait(c->hpkv, -1);
	}
	return b.status;
}
