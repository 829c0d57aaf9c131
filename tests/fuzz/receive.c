/* What a service sends, however it is cut into pieces, becomes the same items or the same refusal;
 * and a head that is whole is read as the same answer, whatever follows it. The first byte says how
 * to cut. */
#include "transport/receive.h"
#include "transport/upgrade.h"

#include "fuzz.h"

enum { MAX = 300 };

const struct span fuzz_seeds[] = {
	SPAN("\x01\x81\x05hello\x89\x01?\x01\x02"
	     "ab\x80\x01"
	     "c\x88\x05\x03\xf5now"),
	SPAN("\x03\x81\x7e\x01\x2d"
	     "a message that is longer than those that are kept"),
	SPAN("\x02\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00x"),
	SPAN("\x07HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: "
	     "2\r\n\r\nno"),
	SPAN("\x05HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: a, upgrade\r\n"
	     "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x01x"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

static void shared(struct buf *told, const struct receive_item *item)
{
	must(item->kind < RECEIVE_KIND_N);
	must(item->kind == RECEIVE_MESSAGE ? item->text.n <= MAX
					   : item->text.n <= FRAME_CONTROL_MAX);
	buf_addf(told, "%d %d %d %d %zu ", item->kind, item->code, item->binary, item->truncated,
		 item->text.n);
	buf_add(told, item->text.p, item->text.n);
}

static void take(const char *p, size_t n, size_t cut, struct buf *told)
{
	struct receive r;
	struct receive_item item;
	int got = 0;

	receive_init(&r, MAX);
	for (size_t at = 0; at < n && got >= 0; at += cut) {
		size_t piece = n - at < cut ? n - at : cut;
		memcpy(receive_room(&r, piece), p + at, piece);
		receive_grew(&r, piece);
		while ((got = receive_next(&r, &item)) > 0)
			shared(told, &item);
		must(buf_len(&r.bytes) <= cut + MAX + FRAME_OVERHEAD_MAX);
		must(buf_len(&r.message) <= MAX);
	}
	must((got < 0) == (r.fault_code != 0));
	buf_addf(told, "%d %s", r.fault_code, r.fault);
	receive_release(&r);
}

static void check_answer(struct span bytes)
{
	static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
	struct upgrade u, again;
	const char *why = NULL, *why_again = NULL;
	int got = upgrade_read(bytes, key, &u, &why);

	must(got < 0 ? why != NULL : got <= 1);
	if (got <= 0)
		return;
	must(u.head <= bytes.n && u.status >= 101 && u.status <= 999);
	must(upgrade_read((struct span){bytes.p, u.head}, key, &again, &why_again) == 1);
	must(again.status == u.status && again.head == u.head && again.body == u.body);
	must(upgrade_read((struct span){bytes.p, u.head - 1}, key, &again, &why_again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = {0}, cut = {0};

	if (size < 2)
		return 0;
	char *text = fuzz_memory(size - 1);
	memcpy(text, data + 1, size - 1);
	take(text, size - 1, size, &whole);
	take(text, size - 1, data[0] % 16 + 1U, &cut);
	must(span_equal(buf_span(&whole), buf_span(&cut)));
	check_answer((struct span){text, size - 1});
	buf_release(&whole);
	buf_release(&cut);
	free(text);
	return 0;
}
