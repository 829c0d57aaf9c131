#include "pubsub.h"

#include <poll.h>
#include <string.h>

#include "bench.h"
#include "burst.h"
#include "speech.h"

enum { PATIENCE_MS = 60000, QUOTE_MAX = 300 };

static void add(struct buf *out, struct span s)
{
	buf_add(out, s.p, s.n);
}

static bool begins(struct span text, struct span with)
{
	return text.n >= with.n && memcmp(text.p, with.p, with.n) == 0;
}

/* --- lines: a request's messageId is the number of its keys, so that the answer tells it --- */

static void lines_subscribe(struct buf *out, size_t first, size_t n)
{
	char key[BENCH_KEY + 1];

	buf_addf(out, "{\"op\":\"subscribe\",\"messageId\":%zu,\"keys\":[", n);
	for (size_t i = 0; i < n; i++) {
		bench_key(key, first + i);
		buf_addf(out, "%s\"%s\"", i ? "," : "", key);
	}
	add(out, SPAN("]}\n"));
}

static void lines_publish(struct buf *out, struct span text)
{
	add(out, text);
	add(out, SPAN("\n"));
}

static int lines_hear(struct buf *in, struct heard *h)
{
	struct span text = buf_span(in);
	const char *end = memchr(text.p, '\n', text.n);
	uint64_t keys;

	if (!end)
		return 0;
	text.n = (size_t)(end - text.p);
	if (begins(text, SPAN("{\"type\":\"notification\",")))
		*h = (struct heard){text, 0};
	else if (begins(text, SPAN("{\"code\":200,")) && speech_last_id(text, &keys))
		*h = (struct heard){{NULL, 0}, (size_t)keys};
	else
		return -1;
	buf_take(in, text.n + 1);
	return 1;
}

/* --- redis --- */

static void redis_subscribe(struct buf *out, size_t first, size_t n)
{
	char key[BENCH_KEY + 1];

	buf_addf(out, "*%zu\r\n$9\r\nSUBSCRIBE\r\n", n + 1);
	for (size_t i = 0; i < n; i++) {
		bench_key(key, first + i);
		buf_addf(out, "$%d\r\n%s\r\n", BENCH_KEY, key);
	}
}

static void redis_publish(struct buf *out, struct span text)
{
	buf_addf(out, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n" BURST_KEY "\r\n$%zu\r\n", BENCH_KEY, text.n);
	add(out, text);
	add(out, SPAN("\r\n"));
}

/* Takes a line, or the string whose length is on it, from the front of *rest. false: it is not
 * whole. */
static bool redis_part(struct span *rest, struct span *part)
{
	const char *end = memchr(rest->p, '\n', rest->n);
	size_t whole, length = 0;

	if (!end || end == rest->p)
		return false;
	whole = (size_t)(end + 1 - rest->p);
	*part = (struct span){rest->p, whole - 2};
	if (*rest->p == '$') {
		for (const char *p = rest->p + 1; *p >= '0' && *p <= '9'; p++)
			length = length * 10 + (size_t)(*p - '0');
		*part = (struct span){end + 1, length};
		whole += length + 2;
	}
	if (whole > rest->n)
		return false;
	*rest = (struct span){rest->p + whole, rest->n - whole};
	return true;
}

static int redis_hear(struct buf *in, struct heard *h)
{
	struct span rest = buf_span(in), head, kind, key, what;

	if (!redis_part(&rest, &head))
		return 0;
	if (span_equal(head, SPAN("+PONG"))) {
		*h = (struct heard){{NULL, 0}, 0};
	} else if (span_equal(head, SPAN("*3"))) {
		if (!redis_part(&rest, &kind) || !redis_part(&rest, &key) ||
		    !redis_part(&rest, &what))
			return 0;
		bool change = span_equal(kind, SPAN("message"));
		*h = (struct heard){change ? what : (struct span){NULL, 0}, change ? 0 : 1};
	} else {
		return -1;
	}
	buf_take(in, buf_len(in) - rest.n);
	return 1;
}

/* --- mqtt --- */

#define MQTT_CONNECT                                                                               \
	"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0" /* clean session, no keep-alive, no name */

enum mqtt_packet { CONNACK = 2, PUBLISH = 3, SUBSCRIBE = 8, SUBACK = 9 };
enum { MQTT_LENGTH_BYTES = 4, MQTT_REFUSED = 0x80 };

static void mqtt_head(struct buf *out, int first, size_t length)
{
	char head[1 + MQTT_LENGTH_BYTES], *p = head;

	*p++ = (char)first;
	do {
		*p++ = (char)((length & 127) | (length > 127 ? 128 : 0));
	} while (length >>= 7);
	buf_add(out, head, (size_t)(p - head));
}

static void mqtt_subscribe(struct buf *out, size_t first, size_t n)
{
	char topic[2 + BENCH_KEY + 1] = {0, BENCH_KEY};

	mqtt_head(out, SUBSCRIBE << 4 | 2, 2 + n * sizeof topic);
	add(out, SPAN("\0\x01")); /* the packet's identifier, which nobody looks at */
	for (size_t i = 0; i < n; i++) {
		bench_key(topic + 2, first + i); /* its NUL is the wanted QoS */
		buf_add(out, topic, sizeof topic);
	}
}

static void mqtt_publish(struct buf *out, struct span text)
{
	mqtt_head(out, PUBLISH << 4, 2 + BENCH_KEY + text.n);
	add(out, SPAN("\0\x0d" BURST_KEY));
	add(out, text);
}

/* The head that lies there: 1: *head bytes, then *length; 0: it is not whole yet. */
static int mqtt_head_at(struct span text, size_t *head, size_t *length)
{
	*length = 0;
	for (size_t i = 1; i < text.n && i <= MQTT_LENGTH_BYTES; i++) {
		unsigned char byte = (unsigned char)text.p[i];
		*length |= (size_t)(byte & 127) << 7 * (i - 1);
		if (byte < 128) {
			*head = i + 1;
			return 1;
		}
	}
	return text.n > MQTT_LENGTH_BYTES ? -1 : 0;
}

static bool mqtt_understood(int packet, struct span body, struct heard *h)
{
	switch (packet) {
	case PUBLISH:
		if (body.n < 2 + BENCH_KEY)
			return false;
		*h = (struct heard){{body.p + 2 + BENCH_KEY, body.n - 2 - BENCH_KEY}, 0};
		return true;
	case SUBACK:
		if (body.n < 2 || memchr(body.p + 2, MQTT_REFUSED, body.n - 2))
			return false;
		*h = (struct heard){{NULL, 0}, body.n - 2};
		return true;
	case CONNACK:
		*h = (struct heard){{NULL, 0}, 0};
		return body.n == 2 && body.p[1] == 0;
	default:
		return false;
	}
}

static int mqtt_hear(struct buf *in, struct heard *h)
{
	struct span text = buf_span(in);
	size_t head, length;
	int got = mqtt_head_at(text, &head, &length);

	if (got <= 0)
		return got;
	if (text.n < head + length)
		return 0;
	if (!mqtt_understood((unsigned char)*text.p >> 4, (struct span){text.p + head, length}, h))
		return -1;
	buf_take(in, head + length);
	return 1;
}

/* --- all of them --- */

#define CONST_SPAN(literal)                                                                        \
	{                                                                                          \
		(literal), sizeof(literal) - 1                                                     \
	}

static const struct pubsub table[] = {
	{"lines", CONST_SPAN("{\"op\":\"ping\",\"messageId\":0}\n"), CONST_SPAN(""),
	 lines_subscribe, lines_publish, lines_hear},
	{"redis", CONST_SPAN("*1\r\n$4\r\nPING\r\n"),
	 CONST_SPAN("*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n"), redis_subscribe,
	 redis_publish, redis_hear},
	{"mqtt", CONST_SPAN(MQTT_CONNECT), CONST_SPAN(MQTT_CONNECT), mqtt_subscribe, mqtt_publish,
	 mqtt_hear},
};

const struct pubsub *pubsub_named(const char *name)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (strcmp(name, table[i].name) == 0)
			return &table[i];
	bench_die("nobody subscribes in a speech called %s", name);
}

void pubsub_subscribe(const struct pubsub *s, struct conn *c, size_t first, size_t n)
{
	for (size_t part; n; first += part, n -= part) {
		part = n < PUBSUB_KEYS_MAX ? n : PUBSUB_KEYS_MAX;
		s->subscribe(&c->out, first, part);
	}
}

static void wait_for(const struct conn *c, short events, const char *what)
{
	struct pollfd p = {.fd = c->fd, .events = events};

	if (poll(&p, 1, PATIENCE_MS) <= 0)
		bench_die("%s within a minute", what);
}

void pubsub_flush(struct conn *c)
{
	while (buf_len(&c->out)) {
		if (!conn_flush(c))
			bench_die("the peer has closed a connection");
		if (buf_len(&c->out))
			wait_for(c, POLLOUT, "the peer does not read what is said to it");
	}
	buf_release(&c->out);
}

void pubsub_await(const struct pubsub *s, struct conn *c, size_t n)
{
	struct heard h;
	size_t keys = 0;
	bool consented = false;

	while (!consented || keys < n) {
		int got = buf_len(&c->in) ? s->hear(&c->in, &h) : 0;
		if (got < 0 || (got > 0 && h.change.p))
			pubsub_die(s, got < 0 ? buf_span(&c->in) : h.change);
		if (got > 0) {
			consented = true;
			keys += h.keys;
			continue;
		}
		wait_for(c, POLLIN, "no answer");
		if (!conn_fill(c))
			bench_die("the peer has closed a connection");
	}
	if (!buf_len(&c->in))
		buf_release(&c->in);
}

void pubsub_die(const struct pubsub *s, struct span text)
{
	size_t n = text.n < QUOTE_MAX ? text.n : QUOTE_MAX;
	const char *end = memchr(text.p, '\n', n);

	bench_die("the peer refuses, or says in %s what nobody expects: %.*s", s->name,
		  end ? (int)(end - text.p) : (int)n, text.p);
}
