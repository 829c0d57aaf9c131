#include "transport/receive.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { KEEP = 65536 }; /* bytes of memory kept for the next message */

void receive_init(struct receive *r, size_t max_message)
{
	*r = (struct receive){.max_message = max_message};
}

void receive_release(struct receive *r)
{
	buf_release(&r->bytes);
	buf_release(&r->message);
}

/* ---- bytes ---- */

static void shrink(struct buf *b)
{
	if (!buf_len(b) && buf_size(b) > KEEP)
		buf_release(b);
}

/* Frees the bytes of the last item. */
static void take_used(struct receive *r)
{
	buf_take(&r->bytes, r->used);
	r->used = 0;
	if (!r->in_message)
		buf_take(&r->message, buf_len(&r->message));
}

char *receive_room(struct receive *r, size_t n)
{
	take_used(r);
	shrink(&r->bytes);
	shrink(&r->message);
	return buf_room(&r->bytes, n);
}

void receive_grew(struct receive *r, size_t n)
{
	buf_grew(&r->bytes, n);
}

/* ---- headers ---- */

static int __attribute__((format(printf, 3, 4)))
refuse(struct receive *r, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(r->fault, sizeof(r->fault), format, args);
	va_end(args);
	r->fault_code = code;
	return -EPROTO;
}

static bool is_control(const struct frame_header *f)
{
	return f->opcode >= FRAME_CLOSE;
}

static int check_control(struct receive *r)
{
	const struct frame_header *f = &r->frame;

	if (f->opcode > FRAME_PONG)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "its opcode is %u", f->opcode);
	if (!f->final)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it is a part of a control frame");
	if (f->length > FRAME_CONTROL_MAX)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it is a control frame of %" PRIu64 " bytes",
			      f->length);
	return 0;
}

static uint64_t bound(const struct receive *r)
{
	uint64_t many = (uint64_t)r->max_message * RECEIVE_FACTOR;

	return many > RECEIVE_LEAST ? many : RECEIVE_LEAST;
}

static int begin_data(struct receive *r)
{
	const struct frame_header *f = &r->frame;

	if (f->opcode > FRAME_BINARY)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "its opcode is %u", f->opcode);
	if (f->opcode == FRAME_CONTINUATION && !r->in_message)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it continues no message");
	if (f->opcode != FRAME_CONTINUATION && r->in_message)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it begins a message within another");
	if (f->length >> 63)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "the highest bit of its length is set");
	if (!r->in_message) {
		r->total = 0;
		r->binary = f->opcode == FRAME_BINARY;
	}
	r->total += f->length;
	if (r->total > bound(r))
		return refuse(r, FRAME_CLOSE_TOO_BIG, "its message has %" PRIu64 " bytes or more",
			      r->total);
	r->in_message = true;
	return 0;
}

/* 1: the header of a frame was taken; 0: it is not complete yet. */
static int take_header(struct receive *r)
{
	struct frame_header *f = &r->frame;
	int err;

	if (!frame_read_header(buf_span(&r->bytes), f))
		return 0;
	buf_take(&r->bytes, f->size);
	if (f->masked)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it is masked");
	if (f->reserved)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it has reserved bits");
	err = is_control(f) ? check_control(r) : begin_data(r);
	if (err < 0)
		return err;
	r->left = f->length;
	r->in_frame = true;
	return 1;
}

/* ---- payloads ---- */

/* May a service send this code (RFC 6455, 7.4)? Unassigned codes are allowed: they may be assigned
 * by now. */
static bool is_sendable(int code)
{
	return code >= 1000 && code <= 4999 && code != 1004 && code != 1005 && code != 1006 &&
	       code != 1015;
}

static int read_close(struct receive *r, struct receive_item *item)
{
	const unsigned char *p = (const unsigned char *)item->text.p;

	item->code = RECEIVE_NO_CODE;
	if (!item->text.n)
		return 1;
	if (item->text.n == 1)
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it is a close frame with half a code");
	item->code = p[0] << 8 | p[1];
	item->text = (struct span){item->text.p + 2, item->text.n - 2};
	if (!is_sendable(item->code))
		return refuse(r, FRAME_CLOSE_PROTOCOL, "it is a close frame with the code %d",
			      item->code);
	return 1;
}

static int end_control(struct receive *r, struct receive_item *item)
{
	static const enum receive_kind kinds[] = {RECEIVE_CLOSE, RECEIVE_PING, RECEIVE_PONG};

	if (buf_len(&r->bytes) < r->left)
		return 0;
	r->used = (size_t)r->left;
	r->in_frame = false;
	*item = (struct receive_item){.kind = kinds[r->frame.opcode - FRAME_CLOSE],
				      .text = {buf_span(&r->bytes).p, r->used}};
	return item->kind == RECEIVE_CLOSE ? read_close(r, item) : 1;
}

/* A message that is whole in this frame stays in place until it is complete, and is never copied.
 */
static bool is_in_place(const struct receive *r)
{
	return r->frame.final && r->frame.opcode != FRAME_CONTINUATION &&
	       r->frame.length <= r->max_message;
}

static void keep_piece(struct receive *r)
{
	struct span come = buf_span(&r->bytes);
	size_t n = come.n < r->left ? come.n : (size_t)r->left;
	size_t room = r->max_message - buf_len(&r->message);

	buf_add(&r->message, come.p, n < room ? n : room);
	buf_take(&r->bytes, n);
	r->left -= n;
}

static int end_data(struct receive *r, struct receive_item *item)
{
	if (is_in_place(r)) {
		if (buf_len(&r->bytes) < r->left)
			return 0;
		r->used = (size_t)r->left;
	} else {
		keep_piece(r);
		if (r->left)
			return 0;
	}
	r->in_frame = false;
	if (!r->frame.final)
		return 0;
	r->in_message = false;
	*item = (struct receive_item){
		.kind = RECEIVE_MESSAGE,
		.text = is_in_place(r) ? (struct span){buf_span(&r->bytes).p, r->used}
				       : buf_span(&r->message),
		.binary = r->binary,
		.truncated = r->total > r->max_message,
	};
	return 1;
}

int receive_next(struct receive *r, struct receive_item *item)
{
	int got;

	if (r->fault_code)
		return -EPROTO;
	take_used(r);
	do {
		got = r->in_frame ? 1 : take_header(r);
		if (got <= 0)
			return got;
		got = is_control(&r->frame) ? end_control(r, item) : end_data(r, item);
		/* Behind a part of a message another frame may be there already. */
	} while (!got && !r->in_frame);
	return got;
}
