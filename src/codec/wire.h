/* wire.h - the service's frames: a request into a frame's text, a frame's text into spans.
 *
 * The facts about the service's messages (names, numbers, members) are from its public
 * documentation and its SDK, @hpkv/websocket-client 1.4.1. Nothing is decoded: keys and values pass
 * as written.
 *
 * A frame has two parts, {"messageId":17, and "op":1,"key":"user:1"}. The head is made each time
 * the request is sent, with a new id; the body is made once. */
#pragma once

#include <stdint.h>

#include "codec/request.h"
#include "base/span.h"

enum { WIRE_HEAD_MAX = 40 };
#define WIRE_ID_MAX ((UINT64_C(1) << 53) - 1) /* every JSON library carries it exactly */

/* The length of a frame with a body of this length, with the longest id. */
static inline size_t wire_length(size_t body)
{
	return sizeof("{\"messageId\":9007199254740991,") - 1 + body;
}

/* Writes the head for an id up to WIRE_ID_MAX; returns its length. */
size_t wire_head(char out[WIRE_HEAD_MAX], uint64_t id);

/* The body of a request: an upper bound of its length, and the writing, which returns the length. A
 * value that is not a string is sent as a string of its text, without the white space between its
 * tokens. */
size_t wire_body_max(const struct request *r);
size_t wire_body(const struct request *r, char *out);

enum wire_kind { WIRE_ANSWER, WIRE_NOTIFICATION, WIRE_UNUSABLE, WIRE_KIND_N };

struct wire_frame {
	enum wire_kind kind;
	struct span text; /* the whole frame */
	uint64_t id;      /* of an answer, or of an unusable frame if has_id */
	bool has_id;
	bool newline; /* raw CR or LF between tokens; wire_splice() makes them spaces */
	int code;     /* of an answer */
	struct json_member id_member;            /* position of the id */
	bool id_is_last;                         /* no comma follows it */
	struct json_value key, value, timestamp; /* of a notification (key, value: also of an
						    answer); text.p NULL: not given */
	bool notifies;     /* its type is notification and it has a key, whatever its kind */
	const char *fault; /* of an unusable frame: the reason, a phrase for the log */
};

/* Reads a frame. Never fails: a frame that can not be used is WIRE_UNUSABLE, with the id if one was
 * read before the fault. An answer has a whole non-negative messageId and a whole code. A frame of
 * type notification is never an answer; if it can not be used but has a key, a change was lost that
 * clients may be subscribed to. */
void wire_parse(struct span text, struct wire_frame *frame);

/* The answer as a line for the client: the service's bytes with the client's messageId in place of
 * ours, or without the member if id is empty. Raw line ends between tokens become spaces. An upper
 * bound of the length, and the writing, which returns the length. */
size_t wire_splice_max(const struct wire_frame *frame, struct span id);
size_t wire_splice(const struct wire_frame *frame, struct span id, char *out);
/* The part of an answer that the client's id takes the place of; whole_member: that goes if there
 * is none. */
struct span wire_hole(const struct wire_frame *frame, bool whole_member);

/* Replaces raw line ends between the tokens of a frame by spaces. Strings have none. */
void wire_flatten(char *text, size_t n);
