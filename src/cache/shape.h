/* shape.h - the form of the service's answer to a get, without what differs from key to key.
 *
 * An answer from memory is the service's answer byte for byte, with the client's messageId in the
 * place of ours and "cached":true as its last member. So of an answer is kept its value; the rest,
 * with places for the messageId, the key and the value, is its shape, which thousands of entries
 * share:
 *
 *     {"code":200,"key":"user:1","value":"Ada","messageId":17}
 *     {"code":200,"key":········,"value":·····,"messageId":··}
 *
 * SHAPES_MAX of them are shared. An answer with a form of its own beyond these (because each one
 * has another member, say) has a shape of its own, which is memory of its entry. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "codec/wire.h"

enum { SHAPES_MAX = 16 };

struct shape;

struct shapes {
	struct shape *shared[SHAPES_MAX]; /* NULL: free */
	struct shape *found, *missing;    /* of what the service has never answered to a get */
	struct buf scratch;
};

void shapes_init(struct shapes *s);
void shapes_fini(struct shapes *s); /* all references are given back */

/* The shape of this answer, with a reference of the caller's; NULL: it can't be kept. key: decoded.
 * *value: the value's text in the frame; empty if it has none. */
struct shape *shape_of(struct shapes *s, const struct wire_frame *frame, struct span key,
		       struct span *value);
struct shape *shape_ref(struct shape *shape);
void shape_unref(struct shapes *s, struct shape *shape);
/* Bytes that belong to its only user; 0: it is shared. */
size_t shape_own_size(const struct shape *shape);

/* Appends the answer as a line. id: the client's; empty: none. last: further members, as
 * ,"cached":true. */
void shape_write(const struct shape *shape, struct span key, struct span value, struct span id,
		 struct span last, struct buf *out);
