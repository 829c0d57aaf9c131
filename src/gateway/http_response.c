#include "gateway/http_response.h"

#include <time.h>

#include "codec/json.h"

static const struct {
	int status;
	const char *phrase, *reason;
} statuses[] = {
	{101, "Switching Protocols", NULL},
	{200, "OK", NULL},
	{204, "No Content", NULL},
	{400, "Bad Request", "bad_request"},
	{401, "Unauthorized", "unauthorized"},
	{403, "Forbidden", "forbidden"},
	{404, "Not Found", "not_found"},
	{405, "Method Not Allowed", "method_not_allowed"},
	{408, "Request Timeout", "request_timeout"},
	{409, "Conflict", NULL},
	{413, "Content Too Large", "too_large"},
	{414, "URI Too Long", "too_large"},
	{415, "Unsupported Media Type", "unsupported_media_type"},
	{417, "Expectation Failed", "bad_request"},
	{426, "Upgrade Required", "upgrade_required"},
	{429, "Too Many Requests", NULL},
	{431, "Request Header Fields Too Large", "too_large"},
	{500, "Internal Server Error", NULL},
	{501, "Not Implemented", "not_implemented"},
	{502, "Bad Gateway", NULL},
	{503, "Service Unavailable", NULL},
	{504, "Gateway Timeout", NULL},
	{505, "HTTP Version Not Supported", "bad_request"},
};

static size_t find(int status)
{
	size_t i = 0, n = sizeof(statuses) / sizeof(statuses[0]);

	while (i < n && statuses[i].status != status)
		i++;
	return i;
}

static const char *phrase_of(int status)
{
	size_t i = find(status);

	if (i < sizeof(statuses) / sizeof(statuses[0]))
		return statuses[i].phrase;
	return status < 500 ? "Client Error" : "Server Error";
}

static void write_cors(struct buf *out, const struct http_response *r)
{
	if (!r->origin)
		return;
	buf_addf(out,
		 "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n"
		 "Access-Control-Expose-Headers: Retry-After, x-hpkvd-cache\r\n",
		 r->origin);
	if (r->preflight)
		buf_addf(out, "Access-Control-Allow-Methods: GET, HEAD, POST, DELETE\r\n"
			      "Access-Control-Allow-Headers: x-api-key, authorization, "
			      "content-type\r\nAccess-Control-Max-Age: 600\r\n");
	if (r->preflight && r->private_network)
		buf_addf(out, "Access-Control-Allow-Private-Network: true\r\n");
}

/* As RFC 9110 wants it (5.6.7), in English whatever the locale. */
static void write_date(struct buf *out, int64_t wall_ms)
{
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t now = (time_t)(wall_ms / 1000);
	struct tm t;

	if (wall_ms <= 0 || !gmtime_r(&now, &t))
		return;
	buf_addf(out, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", days[t.tm_wday], t.tm_mday,
		 months[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

/* A second at least: 0 would ask for a storm. */
static void write_retry(struct buf *out, long ms)
{
	if (ms >= 0)
		buf_addf(out, "Retry-After: %ld\r\n", ms < 1000 ? 1 : (ms + 999) / 1000);
}

static void write_connection(struct buf *out, const struct http_response *r)
{
	if (r->status == 101)
		buf_addf(out, "Upgrade: websocket\r\nConnection: Upgrade\r\n");
	else if (r->status == 426)
		buf_addf(out, "Upgrade: websocket\r\nConnection: Upgrade%s\r\n",
			 r->close ? ", close" : "");
	else if (r->close || r->stream)
		buf_addf(out, "Connection: close\r\n");
	else if (r->keep_alive)
		buf_addf(out, "Connection: keep-alive\r\n");
}

void http_response_write(struct buf *out, const struct http_response *r)
{
	bool has_body = r->status >= 200 && r->status != 204;

	buf_addf(out, "HTTP/1.1 %d %s\r\n", r->status, phrase_of(r->status));
	if (r->status >= 200)
		write_date(out, r->wall_ms);
	if (has_body)
		buf_addf(out, "Content-Type: %s\r\n", r->type ? r->type : "application/json");
	if (has_body && !r->stream)
		buf_addf(out, "Content-Length: %zu\r\n", r->body.n);
	if (r->status != 101)
		buf_addf(out, "Cache-Control: no-store\r\n");
	write_connection(out, r);
	write_retry(out, r->retry_after_ms);
	if (r->status == 401)
		buf_addf(out, "WWW-Authenticate: Bearer\r\n");
	if (r->allow.n)
		buf_addf(out, "Allow: %.*s\r\n", (int)r->allow.n, r->allow.p);
	write_cors(out, r);
	buf_add(out, r->extra.p, r->extra.n);
	buf_addf(out, "\r\n");
	if (has_body && !r->no_body)
		buf_add(out, r->body.p, r->body.n);
}

void http_response_error(struct buf *out, int status, const char *text)
{
	size_t i = find(status);
	const char *reason = i < sizeof(statuses) / sizeof(statuses[0]) ? statuses[i].reason : NULL;

	buf_addf(out, "{\"code\":%d,\"error\":", status);
	json_add_string(out, (struct span){text, strlen(text)});
	buf_addf(out, ",\"reason\":\"%s\",\"executed\":\"no\"}", reason ? reason : "bad_request");
}
