/* wire.h - HPKV's frames: a request into the text of one, the text of one into spans.
 *
 * The facts about the service's messages (names, numbers, who carries which member) are from its
 * public documentation and from its SDK, @hpkv/websocket-client 1.4.1. Nothing is decoded: keys and
 * values pass as they were written.
 *
 * A frame is sent in two parts, {"messageId":17, and "op":1,"key":"user:1"} so that the part that
 * names the request is made when it is sent, under a fresh id each time, and the rest only once. */
#pragma once

#include <stdint.h>

#include "codec/request.h"
#include "base/span.h"

enum { WIRE_HEAD_MAX = 40 };
#define WIRE_ID_MAX ((UINT64_C(1) << 53) - 1) /* what every JSON library carries exactly */

/* The length of a frame's text with a body of so many bytes. The id is taken to have 16 digits, as
 * the longest have, since each sending has another id. */
static inline size_t wire_length(size_t body)
{
	return sizeof("{\"messageId\":9007199254740991,") - 1 + body;
}

/* Writes the head for an id up to WIRE_ID_MAX; returns its length. */
size_t wire_head(char out[WIRE_HEAD_MAX], uint64_t id);

/* The body of a remote request: an upper bound of its length, and the writing of it, returning the
 * length. A value that is not a string goes as a string of its own text without the white space
 * between its tokens. */
size_t wire_body_max(const struct request *r);
size_t wire_body(const struct request *r, char *out);

enum wire_kind { WIRE_ANSWER, WIRE_NOTIFICATION, WIRE_UNUSABLE, WIRE_KIND_N };

struct wire_frame {
	enum wire_kind kind;
	struct span text; /* the whole frame */
	uint64_t id;      /* of an answer, or of an unusable frame if has_id */
	bool has_id;
	bool newline;                 /* raw CR or LF between tokens: spliced to spaces */
	int code;                     /* of an answer */
	struct json_member id_member; /* where the id stands, for splicing */
	bool id_is_last;              /* no comma follows the id member */
	struct json_value key, value, timestamp; /* of a notification; text.p NULL: not given.
						    value: of an answer as well */
	bool notifies;     /* it calls itself a notification and names a key, whatever its kind */
	const char *fault; /* of an unusable frame: a phrase for the log */
};

/* Reads a frame. Never fails: what can't be used has kind WIRE_UNUSABLE, with the id of the request
 * that it seems to answer when one was read before the fault. An answer has a whole non-negative
 * messageId and a whole code. A frame that calls itself a notification is never an answer, and
 * if it can't be used but names a key, a change is lost that somebody may be subscribed to. */
void wire_parse(struct span text, struct wire_frame *frame);

/* The answer as the client's line, newline included: the service's own bytes with the client's
 * messageId in the place of ours, or without the member when id is empty. An upper bound of its
 * length, and the writing, which returns the length. Raw line ends between tokens become spaces. */
size_t wire_splice_max(const struct wire_frame *frame, struct span id);
size_t wire_splice(const struct wire_frame *frame, struct span id, char *out);

/* Makes one line of a frame's text that has raw line ends between its tokens: they become spaces.
 * Within strings there can't be any. */
void wire_flatten(char *text, size_t n);
