/* Any bytes as the frames of a WebSocket client: whatever they are, they mean the same in one piece
 * and in many, no message is longer than the bound, and nothing is kept beyond it. */
#include "fuzz.h"

#include <string.h>

#include "codec/ws_frames.h"

enum { MAX = 64 };

/* 14 bytes are a masked frame; the mask is zero, so that the payload can be read here. */
const struct span fuzz_seeds[] = {
	{"\x81\x85\0\0\0\0hello\x89\x81\0\0\0\0p\x88\x82\0\0\0\0\x03\xe8", 26},
	{"\x01\x82\0\0\0\0he\x8a\x80\0\0\0\0\x00\x80\0\0\0\0\x80\x83\0\0\0\0llo", 29},
	{"\x81\xfe\0\x7e\0\0\0\0 a message whose length takes two more bytes "
	 "...........................",
	 75},
	{"\x81\xff\0\0\0\0\0\1\0\0\0\0\0\0 one that is too long", 35},
	{"\x82\x81\0\0\0\0x\xc1\x81\0\0\0\0x", 14},
	{"\x81\x01x", 3},
	{"\x88\x80\0\0\0\0\x88\x81\0\0\0\0x", 13},
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

/* What a reader tells, as bytes: the event, the code, and what it hands out. */
static void read_all(struct span bytes, size_t piece, struct buf *told)
{
	struct ws_reader *r = ws_reader_new(MAX);
	enum ws_event event = WS_NEED_MORE;

	for (size_t at = 0; at < bytes.n && event != WS_FAULT && event != WS_CLOSE; at += piece) {
		size_t n = bytes.n - at < piece ? bytes.n - at : piece;
		char *copy = fuzz_memory(n);
		memcpy(copy, bytes.p + at, n);
		struct span left = {copy, n};
		do {
			struct span payload = {0};
			int code = 0;
			event = ws_next(r, &left, &payload, &code);
			must(event == WS_TOO_LONG || payload.n <= MAX ||
			     payload.n <= WS_CONTROL_MAX);
			must((event != WS_PING && event != WS_PONG) || payload.n <= WS_CONTROL_MAX);
			must(event != WS_CLOSE || code);
			must(ws_reader_kept(r) <= MAX);
			if (event == WS_NEED_MORE || event == WS_FAULT)
				payload = (struct span){0};
			if (event != WS_NEED_MORE)
				buf_addf(told, "%d %d ", (int)event, event == WS_CLOSE ? code : 0);
			if (event != WS_TOO_LONG) /* how much of its beginning is told depends */
				buf_add(told, payload.p, payload.n);
		} while (event != WS_NEED_MORE && event != WS_FAULT && event != WS_CLOSE);
		must(event != WS_NEED_MORE || left.n == 0);
		ws_reader_rest(r); /* wherever the bytes are cut, nothing is lost */
		free(copy);
	}
	ws_reader_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span bytes = {(const char *)data, size};
	struct buf once = {0};

	read_all(bytes, size ? size : 1, &once);
	for (size_t piece = 1; piece < 12; piece += 5) {
		struct buf again = {0};
		read_all(bytes, piece, &again);
		must(span_equal(buf_span(&once), buf_span(&again)));
		buf_release(&again);
	}
	buf_release(&once);
	return 0;
}
