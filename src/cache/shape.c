#include "cache/shape.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "codec/json.h"

enum slot_kind { SLOT_ID, SLOT_KEY, SLOT_VALUE, SLOT_N };

struct slot {
	uint32_t at; /* in shape::text, where its text belongs */
	enum slot_kind kind;
};

struct shape {
	uint32_t refs;
	bool shared;            /* is in shapes::shared */
	uint32_t n;             /* of text; its last byte is the object's last brace */
	uint32_t cut_at, cut_n; /* what goes with the id when there is none; has SLOT_ID in it */
	unsigned n_slots;
	struct slot slot[SLOT_N]; /* in order */
	char text[];
};

/* Something in a frame that is left out of its shape. */
struct gap {
	struct span text;
	enum slot_kind kind;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int by_place(const void *a, const void *b)
{
	const struct gap *g = a, *h = b;

	return (g->text.p > h->text.p) - (g->text.p < h->text.p);
}

/* Is the key written as we would write it? */
static bool is_written_so(struct shapes *s, const struct json_value *text, struct span key)
{
	buf_take(&s->scratch, buf_len(&s->scratch));
	json_add_string(&s->scratch, key);
	return text->text.p && span_equal(text->text, buf_span(&s->scratch));
}

static unsigned find_gaps(struct shapes *s, const struct wire_frame *frame, struct span key,
			  struct gap gaps[SLOT_N])
{
	unsigned n = 0;

	gaps[n++] = (struct gap){frame->id_member.value.text, SLOT_ID};
	if (is_written_so(s, &frame->key, key))
		gaps[n++] = (struct gap){frame->key.text, SLOT_KEY};
	if (frame->value.text.p)
		gaps[n++] = (struct gap){frame->value.text, SLOT_VALUE};
	qsort(gaps, n, sizeof(*gaps), by_place);
	return n;
}

static struct shape *make(const struct wire_frame *frame, struct span text, const struct gap *gaps,
			  unsigned n)
{
	struct shape *shape = mem_zalloc(sizeof(*shape) + text.n);
	struct span cut = wire_hole(frame, true);
	const char *at = text.p;

	shape->refs = 1;
	for (unsigned i = 0; i < n; i++) {
		size_t before = (size_t)(gaps[i].text.p - at);
		memcpy(shape->text + shape->n, at, before);
		if (gaps[i].kind == SLOT_ID) {
			shape->cut_at = shape->n + (uint32_t)(cut.p - at);
			shape->cut_n = (uint32_t)(cut.n - gaps[i].text.n);
		}
		shape->n += (uint32_t)before;
		shape->slot[shape->n_slots++] = (struct slot){shape->n, gaps[i].kind};
		at = gaps[i].text.p + gaps[i].text.n;
	}
	size_t rest = (size_t)(text.p + text.n - at);
	memcpy(shape->text + shape->n, at, rest);
	shape->n += (uint32_t)rest;
	wire_flatten(shape->text, shape->n);
	return shape;
}

static bool is_same(const struct shape *a, const struct shape *b)
{
	return a->n == b->n && a->cut_at == b->cut_at && a->cut_n == b->cut_n &&
	       a->n_slots == b->n_slots &&
	       memcmp(a->slot, b->slot, a->n_slots * sizeof(a->slot[0])) == 0 &&
	       memcmp(a->text, b->text, a->n) == 0;
}

/* The one that is shared already, or this one, shared from now on if there is room. */
static struct shape *share(struct shapes *s, struct shape *shape)
{
	struct shape **room = NULL;

	for (unsigned i = 0; i < SHAPES_MAX; i++) {
		struct shape **place = &s->shared[i];
		if (!*place) {
			room = room ? room : place;
		} else if (is_same(*place, shape)) {
			free(shape);
			return shape_ref(*place);
		}
	}
	if (room) {
		*room = shape;
		shape->shared = true;
	}
	return shape;
}

struct shape *shape_of(struct shapes *s, const struct wire_frame *frame, struct span key,
		       struct span *value)
{
	struct span text = frame->text;
	struct gap gaps[SLOT_N];

	while (text.n && is_space(text.p[text.n - 1]))
		text.n--;
	if (text.n > UINT32_MAX / 2)
		return NULL;
	unsigned n = find_gaps(s, frame, key, gaps);
	*value = frame->value.text.p ? frame->value.text : (struct span){"", 0};
	return share(s, make(frame, text, gaps, n));
}

struct shape *shape_ref(struct shape *shape)
{
	shape->refs++;
	return shape;
}

void shape_unref(struct shapes *s, struct shape *shape)
{
	if (--shape->refs)
		return;
	for (unsigned i = 0; shape->shared && i < SHAPES_MAX; i++) {
		if (s->shared[i] == shape)
			s->shared[i] = NULL;
	}
	free(shape);
}

size_t shape_own_size(const struct shape *shape)
{
	return shape->shared ? 0 : sizeof(*shape) + shape->n;
}

static struct shape *shape_of_literal(struct shapes *s, struct span text)
{
	struct wire_frame frame;
	struct span value;

	wire_parse(text, &frame);
	return shape_of(s, &frame, SPAN("key"), &value);
}

/* The order of members is that of the service's documentation. */
void shapes_init(struct shapes *s)
{
	*s = (struct shapes){0};
	s->found = shape_of_literal(
		s, SPAN("{\"code\":200,\"key\":\"key\",\"value\":\"\",\"messageId\":1}"));
	s->missing = shape_of_literal(
		s, SPAN("{\"code\":404,\"error\":\"Record not found\",\"messageId\":1}"));
}

void shapes_fini(struct shapes *s)
{
	shape_unref(s, s->found);
	shape_unref(s, s->missing);
	buf_release(&s->scratch);
}

/* ---- an answer ---- */

static void add_slot(struct buf *out, enum slot_kind kind, struct span key, struct span value,
		     struct span id)
{
	if (kind == SLOT_KEY)
		json_add_string(out, key);
	else if (kind == SLOT_VALUE)
		buf_add(out, value.p, value.n);
	else
		buf_add(out, id.p, id.n);
}

/* The bytes of the text from..to, without what is cut. */
static void add_text(struct buf *out, const struct shape *shape, size_t from, size_t to, bool cut)
{
	size_t cut_end = shape->cut_at + shape->cut_n;

	if (!cut || to <= shape->cut_at || from >= cut_end) {
		buf_add(out, shape->text + from, to - from);
		return;
	}
	if (from < shape->cut_at)
		buf_add(out, shape->text + from, shape->cut_at - from);
	if (to > cut_end)
		buf_add(out, shape->text + cut_end, to - cut_end);
}

void shape_write(const struct shape *shape, struct span key, struct span value, struct span id,
		 struct span last, struct buf *out)
{
	size_t at = 0;

	for (unsigned i = 0; i < shape->n_slots; i++) {
		add_text(out, shape, at, shape->slot[i].at, !id.n);
		if (id.n || shape->slot[i].kind != SLOT_ID)
			add_slot(out, shape->slot[i].kind, key, value, id);
		at = shape->slot[i].at;
	}
	add_text(out, shape, at, shape->n - 1, !id.n);
	buf_add(out, last.p, last.n);
	buf_add(out, "}\n", 2);
}
