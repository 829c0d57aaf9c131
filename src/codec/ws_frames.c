#include "codec/ws_frames.h"

#include <stdlib.h>
#include <wslay/wslay.h>

#include "base/mem.h"
#include "codec/json.h"

enum { MASK = 4 /* bytes, in the head of each frame of a client */ };

struct ws_reader {
	wslay_frame_context_ptr frames; /* 4 KiB; NULL between frames, after ws_reader_rest() */
	struct span *in;                /* of the present ws_next() */
	uint64_t given, used;           /* bytes: to wslay, and by it for frames */
	size_t max;
	struct buf message; /* the parts of a message that have come */
	struct buf control; /* the same of a control frame */
	uint8_t opcode;     /* of the message that is being received; 0: none is */
	bool in_frame;
	uint64_t left; /* of the frame's payload */
	bool too_long; /* the message's rest is skipped */
	bool handed;   /* message has been handed out */
	bool failed;
};

size_t ws_reader_kept(const struct ws_reader *r)
{
	return buf_len(&r->message);
}

static ssize_t give(uint8_t *to, size_t n, int flags, void *user)
{
	struct ws_reader *r = user;

	(void)flags;
	if (n > r->in->n)
		n = r->in->n;
	if (n == 0)
		return -1;
	memcpy(to, r->in->p, n);
	*r->in = (struct span){r->in->p + n, r->in->n - n};
	r->given += n;
	return (ssize_t)n;
}

static void open_frames(struct ws_reader *r)
{
	static const struct wslay_frame_callbacks CALLBACKS = {.recv_callback = give};

	if (!r->frames && wslay_frame_context_init(&r->frames, &CALLBACKS, r) != 0)
		mem_refused(sizeof(*r));
}

static void close_frames(struct ws_reader *r)
{
	if (r->frames)
		wslay_frame_context_free(r->frames);
	r->frames = NULL;
}

struct ws_reader *ws_reader_new(size_t max_message)
{
	struct ws_reader *r = mem_zalloc(sizeof(*r));

	r->max = max_message;
	return r;
}

void ws_reader_free(struct ws_reader *r)
{
	if (!r)
		return;
	close_frames(r);
	buf_release(&r->message);
	buf_release(&r->control);
	free(r);
}

void ws_reader_set_max(struct ws_reader *r, size_t max_message)
{
	r->max = max_message;
}

void ws_reader_rest(struct ws_reader *r)
{
	if (r->in_frame || r->given != r->used)
		return;
	close_frames(r);
	buf_release(&r->control);
}

static bool is_control(uint8_t opcode)
{
	return opcode & 8;
}

/* Of a frame with n bytes of payload, without a mask. */
static size_t head_length(uint64_t n)
{
	return n < 126 ? 2 : n < 65536 ? 4 : 10;
}

/* Is this frame allowed here? wslay has checked the lengths, and that control frames are whole. */
static bool begin_frame(struct ws_reader *r, const struct wslay_frame_iocb *f)
{
	if (!f->mask || f->rsv)
		return false;
	r->in_frame = true;
	r->left = f->payload_length;
	r->used += head_length(r->left) + MASK;
	switch (f->opcode) {
	case WSLAY_CONNECTION_CLOSE:
	case WSLAY_PING:
	case WSLAY_PONG:
		return true;
	case WSLAY_CONTINUATION_FRAME:
		return r->opcode != 0;
	case WSLAY_TEXT_FRAME:
	case WSLAY_BINARY_FRAME:
		if (r->opcode)
			return false;
		r->opcode = f->opcode;
		r->too_long = false;
		return true;
	}
	return false;
}

static bool is_valid_code(int code)
{
	return (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
	       (code >= 3000 && code <= 4999);
}

static enum ws_event end_close(struct ws_reader *r, struct span *payload, int *code)
{
	struct span all = buf_span(&r->control);

	*code = WS_NO_CODE;
	*payload = (struct span){0};
	r->failed = true; /* nothing is read behind it */
	if (all.n == 0)
		return WS_CLOSE;
	if (all.n == 1)
		return WS_FAULT;
	*code = (unsigned char)all.p[0] << 8 | (unsigned char)all.p[1];
	*payload = (struct span){all.p + 2, all.n - 2};
	return is_valid_code(*code) && json_is_utf8(*payload) ? WS_CLOSE : WS_FAULT;
}

/* A control frame has come whole. */
static enum ws_event end_control(struct ws_reader *r, uint8_t opcode, struct span *payload,
				 int *code)
{
	if (opcode == WSLAY_CONNECTION_CLOSE)
		return end_close(r, payload, code);
	*payload = buf_span(&r->control);
	return opcode == WSLAY_PING ? WS_PING : WS_PONG;
}

/* Part of a message's frame has come. WS_NEED_MORE: the message goes on. */
static enum ws_event take_data(struct ws_reader *r, const struct wslay_frame_iocb *f,
			       struct span *payload)
{
	bool last = f->fin && r->left == 0;

	if (!r->too_long && buf_len(&r->message) + f->data_length + r->left > r->max) {
		r->too_long = r->handed = true;
		if (last)
			r->opcode = 0;
		*payload = buf_len(&r->message)
				   ? buf_span(&r->message)
				   : (struct span){(const char *)f->data, f->data_length};
		return WS_TOO_LONG;
	}
	if (!r->too_long)
		buf_add(&r->message, f->data, f->data_length);
	if (!last)
		return WS_NEED_MORE;
	uint8_t opcode = r->opcode;
	r->opcode = 0;
	if (r->too_long)
		return WS_NEED_MORE;
	r->handed = true;
	*payload = buf_span(&r->message);
	return opcode == WSLAY_TEXT_FRAME ? WS_TEXT : WS_BINARY;
}

static enum ws_event take(struct ws_reader *r, const struct wslay_frame_iocb *f,
			  struct span *payload, int *code)
{
	if (!r->in_frame && !begin_frame(r, f))
		return WS_FAULT;
	r->left -= f->data_length;
	r->used += f->data_length;
	r->in_frame = r->left > 0;
	if (!is_control(f->opcode))
		return take_data(r, f, payload);
	buf_add(&r->control, f->data, f->data_length);
	return r->in_frame ? WS_NEED_MORE : end_control(r, f->opcode, payload, code);
}

/* Forgets what the last call has handed out. */
static void forget(struct ws_reader *r)
{
	if (r->handed)
		buf_release(&r->message);
	r->handed = false;
	if (!r->in_frame)
		buf_clear(&r->control);
}

enum ws_event ws_next(struct ws_reader *r, struct span *in, struct span *payload, int *code)
{
	enum ws_event event = WS_NEED_MORE;

	forget(r);
	r->in = in;
	if (in->n)
		open_frames(r);
	while (r->frames && !r->failed && event == WS_NEED_MORE) {
		struct wslay_frame_iocb f = {0};
		ssize_t n = wslay_frame_recv(r->frames, &f);
		if (n == WSLAY_ERR_WANT_READ)
			break;
		event = n < 0 ? WS_FAULT : take(r, &f, payload, code);
		r->failed = r->failed || event == WS_FAULT;
	}
	r->in = NULL;
	return event;
}

size_t ws_head(char head[WS_HEAD_MAX], enum ws_opcode opcode, size_t n)
{
	unsigned bytes = (unsigned)head_length(n) - 2;

	head[0] = (char)(0x80 | opcode);
	head[1] = (char)(bytes == 0 ? n : bytes == 2 ? 126 : 127);
	for (unsigned i = 0; i < bytes; i++)
		head[2 + i] = (char)((uint64_t)n >> (8 * (bytes - 1 - i)));
	return 2 + bytes;
}

static void add_frame(struct buf *out, enum ws_opcode opcode, struct span payload)
{
	char head[WS_HEAD_MAX];

	buf_add(out, head, ws_head(head, opcode, payload.n));
	buf_add(out, payload.p, payload.n);
}

void ws_add_close(struct buf *out, int code, struct span reason)
{
	char text[WS_CONTROL_MAX] = {(char)(code >> 8), (char)code};

	if (code == WS_NO_CODE) {
		add_frame(out, WS_OPCODE_CLOSE, (struct span){0});
		return;
	}
	if (reason.n)
		memcpy(text + 2, reason.p, reason.n);
	add_frame(out, WS_OPCODE_CLOSE, (struct span){text, reason.n + 2});
}

void ws_add_pong(struct buf *out, struct span payload)
{
	add_frame(out, WS_OPCODE_PONG, payload);
}
