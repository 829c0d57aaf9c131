#include "http.h"

#include <strings.h>

#include "codec/uri.h"

static struct http *of(http_parser *p)
{
	return p->data;
}

static int on_begin(http_parser *p)
{
	struct http *h = of(p);

	buf_clear(&h->target);
	buf_clear(&h->name);
	for (int i = 0; i < HEADER_N; i++) {
		buf_clear(&h->values[i]);
		h->has[i] = false;
	}
	h->in_value = false;
	return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
	buf_add(&of(p)->target, at, n);
	return 0;
}

static int on_field(http_parser *p, const char *at, size_t n)
{
	struct http *h = of(p);

	if (h->in_value)
		buf_clear(&h->name);
	h->in_value = false;
	buf_add(&h->name, at, n);
	return 0;
}

static enum http_header header_of(struct span name)
{
	static const struct span NAMES[HEADER_N] = {
		[HEADER_API_KEY] = {"x-api-key", 9},
		[HEADER_UPGRADE] = {"upgrade", 7},
		[HEADER_WS_KEY] = {"sec-websocket-key", 17},
		[HEADER_WS_VERSION] = {"sec-websocket-version", 21},
	};
	int i = 0;

	while (i < HEADER_N &&
	       (NAMES[i].n != name.n || strncasecmp(NAMES[i].p, name.p, name.n) != 0))
		i++;
	return (enum http_header)i;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
	struct http *h = of(p);
	enum http_header header = header_of(buf_span(&h->name));

	h->in_value = true;
	if (header == HEADER_N)
		return 0;
	h->has[header] = true;
	buf_add(&h->values[header], at, n);
	return 0;
}

static int on_head(http_parser *p)
{
	of(p)->ops->head(of(p)->owner);
	return 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	of(p)->ops->body(of(p)->owner, (struct span){at, n});
	return 0;
}

static int on_end(http_parser *p)
{
	of(p)->paused = true;
	http_parser_pause(p, 1);
	of(p)->ops->end(of(p)->owner);
	return 0;
}

static const http_parser_settings SETTINGS = {
	.on_message_begin = on_begin,
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_head,
	.on_body = on_body,
	.on_message_complete = on_end,
};

void http_init(struct http *h, const struct http_ops *ops, void *owner)
{
	*h = (struct http){.ops = ops, .owner = owner};
	http_parser_set_max_header_size(HTTP_HEAD_MAX);
	http_parser_init(&h->parser, HTTP_REQUEST);
	h->parser.data = h;
}

void http_fini(struct http *h)
{
	buf_release(&h->target);
	buf_release(&h->name);
	for (int i = 0; i < HEADER_N; i++)
		buf_release(&h->values[i]);
}

bool http_read(struct http *h, struct span data, size_t *taken)
{
	*taken = 0;
	if (h->paused || h->parser.upgrade)
		return true;
	*taken = http_parser_execute(&h->parser, &SETTINGS, data.p, data.n);
	enum http_errno error = HTTP_PARSER_ERRNO(&h->parser);
	return error == HPE_OK || error == HPE_PAUSED;
}

void http_resume(struct http *h)
{
	h->paused = false;
	if (HTTP_PARSER_ERRNO(&h->parser) == HPE_PAUSED)
		http_parser_pause(&h->parser, 0);
}

static size_t path_length(struct span target)
{
	const char *mark = target.n ? memchr(target.p, '?', target.n) : NULL;

	return mark ? (size_t)(mark - target.p) : target.n;
}

struct span http_path(const struct http *h)
{
	struct span target = buf_span(&h->target);

	return (struct span){target.p, path_length(target)};
}

struct span http_query(const struct http *h)
{
	struct span target = buf_span(&h->target);
	size_t n = path_length(target);

	return n < target.n ? (struct span){target.p + n + 1, target.n - n - 1} : (struct span){0};
}

bool http_parameter(const struct http *h, struct span name, struct buf *out)
{
	struct span query = http_query(h);
	struct span found, value;

	while (uri_next_parameter(&query, &found, &value)) {
		if (span_equal(found, name))
			return uri_decode(value, out);
	}
	return false;
}

int64_t http_content_length(const struct http *h)
{
	/* http-parser's way to say that there was none. */
	return h->parser.content_length == UINT64_MAX ? -1 : (int64_t)h->parser.content_length;
}
