#include "speech.h"

#include <string.h>

#include "ws.h"

void talker_init(struct talker *t, size_t number, bool writes)
{
	t->writes = writes;
	bench_key(t->key, number);
	t->answered = 0;
}

static void add(struct buf *out, struct span s)
{
	buf_add(out, s.p, s.n);
}

static void add_id(struct buf *out, uint64_t id)
{
	char digits[20], *p = digits + sizeof digits;

	do
		*--p = (char)('0' + id % 10);
	while (id /= 10);
	buf_add(out, p, (size_t)(digits + sizeof digits - p));
}

/* Read from the end, so that nothing before it has to be looked at. */
bool speech_last_id(struct span text, uint64_t *id)
{
	static const char name[] = "\"messageId\":";
	const char *p = text.p + text.n;
	uint64_t n = 0, scale = 1;

	if (text.n < sizeof name || *--p != '}')
		return false;
	for (; p > text.p && p[-1] >= '0' && p[-1] <= '9'; scale *= 10)
		n += (uint64_t)(*--p - '0') * scale;
	*id = n;
	return scale > 1 && (size_t)(p - text.p) >= sizeof name - 1 &&
	       memcmp(p - (sizeof name - 1), name, sizeof name - 1) == 0;
}

/* One from memory has a member behind the messageId. */
static struct span without_cached(struct span text)
{
	static const char last[] = ",\"cached\":true}";
	static char plain[4096];
	size_t n = text.n - (sizeof last - 1);

	if (text.n <= sizeof last || text.n > sizeof plain ||
	    memcmp(text.p + n, last, sizeof last - 1) != 0)
		return text;
	memcpy(plain, text.p, n);
	plain[n] = '}';
	return (struct span){plain, n + 1};
}

static int read_answer(struct span text, struct answer *a)
{
	static const char ok[] = "{\"code\":200,", echoed[] = "{\"op\":\"";

	a->success = text.n > sizeof ok && (memcmp(text.p, ok, sizeof ok - 1) == 0 ||
					    memcmp(text.p, echoed, sizeof echoed - 1) == 0);
	return speech_last_id(without_cached(text), &a->id) ? 1 : -1;
}

/* What follows op, to the end of the object. */
static void add_members(struct talker *t, struct buf *out, uint64_t id)
{
	add(out, SPAN(",\"key\":\""));
	buf_add(out, t->key, BENCH_KEY);
	add(out, t->writes ? SPAN("\",\"value\":\"" BENCH_VALUE "\",\"messageId\":")
			   : SPAN("\",\"messageId\":"));
	add_id(out, id);
	add(out, SPAN("}"));
}

/* --- lines --- */

static void lines_connect(struct conn *c, const char *to, SSL_CTX *tls)
{
	(void)tls;
	conn_client(c, bench_connect(to), NULL);
}

static void lines_request(struct talker *t, struct buf *out, uint64_t id)
{
	add(out, t->writes ? SPAN("{\"op\":\"set\"") : SPAN("{\"op\":\"get\""));
	add_members(t, out, id);
	add(out, SPAN("\n"));
}

static int lines_answer(struct talker *t, struct buf *in, struct answer *a)
{
	struct span text = buf_span(in);
	const char *end = memchr(text.p, '\n', text.n);

	(void)t;
	if (!end)
		return 0;
	size_t n = (size_t)(end - text.p);
	int result = read_answer((struct span){text.p, n}, a);
	buf_take(in, n + 1);
	return result;
}

/* --- websocket --- */

static void websocket_request(struct talker *t, struct buf *out, uint64_t id)
{
	static struct buf b;

	buf_clear(&b);
	add(&b, t->writes ? SPAN("{\"op\":2") : SPAN("{\"op\":1"));
	add_members(t, &b, id);
	ws_append(out, WS_TEXT, true, buf_span(&b), SPAN(""));
}

static int websocket_answer(struct talker *t, struct buf *in, struct answer *a)
{
	struct ws_frame f;
	int got = ws_frame_at(buf_start(in), buf_len(in), &f);

	(void)t;
	if (got <= 0)
		return got;
	int result = f.opcode == WS_TEXT ? read_answer((struct span){f.p, f.n}, a) : -1;
	buf_take(in, f.whole);
	return result;
}

/* --- redis: a talker's first request sets its key, so that the others find it --- */

static void redis_request(struct talker *t, struct buf *out, uint64_t id)
{
	bool set = t->writes || id == 0;

	add(out, set ? SPAN("*3\r\n$3\r\nSET\r\n$13\r\n") : SPAN("*2\r\n$3\r\nGET\r\n$13\r\n"));
	buf_add(out, t->key, BENCH_KEY);
	add(out, set ? SPAN("\r\n$100\r\n" BENCH_VALUE "\r\n") : SPAN("\r\n"));
}

static int redis_answer(struct talker *t, struct buf *in, struct answer *a)
{
	struct span text = buf_span(in);
	const char *end = memchr(text.p, '\n', text.n);
	size_t whole = end ? (size_t)(end + 1 - text.p) : 0, length = 0;

	if (!end)
		return 0;
	if (*text.p == '$') {
		for (const char *p = text.p + 1; *p >= '0' && *p <= '9'; p++)
			length = length * 10 + (size_t)(*p - '0');
		whole += length + 2;
	}
	if (whole > text.n)
		return 0;
	*a = (struct answer){t->answered++, *text.p == '+' || length == sizeof BENCH_VALUE - 1};
	buf_take(in, whole);
	return 1;
}

/* --- http: REST, on a connection that stays --- */

static void http_request(struct talker *t, struct buf *out, uint64_t id)
{
	(void)id;
	if (t->writes) {
		static const char before[] = "{\"key\":\"",
				  between[] = "\",\"value\":\"" BENCH_VALUE "\"}";
		buf_addf(out,
			 "POST /record HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
			 "Content-Length: %zu\r\n\r\n%s%.*s%s",
			 sizeof before + sizeof between - 2 + BENCH_KEY, before, BENCH_KEY, t->key,
			 between);
		return;
	}
	add(out, SPAN("GET /record/"));
	buf_add(out, t->key, BENCH_KEY);
	add(out, SPAN(" HTTP/1.1\r\nHost: h\r\n\r\n"));
}

static int http_answer(struct talker *t, struct buf *in, struct answer *a)
{
	static const char ok[] = "HTTP/1.1 200 ", length[] = "\r\nContent-Length: ";
	struct span text = buf_span(in);
	const char *end = memmem(text.p, text.n, "\r\n\r\n", 4);
	const char *p =
		end ? memmem(text.p, (size_t)(end - text.p), length, sizeof length - 1) : NULL;
	size_t body = 0;

	if (!end)
		return 0;
	if (!p)
		return -1;
	for (p += sizeof length - 1; *p >= '0' && *p <= '9'; p++)
		body = body * 10 + (size_t)(*p - '0');
	size_t whole = (size_t)(end + 4 - text.p) + body;
	if (whole > text.n)
		return 0;
	*a = (struct answer){t->answered++, memcmp(text.p, ok, sizeof ok - 1) == 0};
	buf_take(in, whole);
	return 1;
}

static const struct speech table[] = {
	{"lines", lines_connect, lines_request, lines_answer},
	{"http", lines_connect, http_request, http_answer},
	{"websocket", ws_connect, websocket_request, websocket_answer},
	{"redis", lines_connect, redis_request, redis_answer},
};

const struct speech *speech_named(const char *name)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (strcmp(name, table[i].name) == 0)
			return &table[i];
	bench_die("no speech is called %s", name);
}
