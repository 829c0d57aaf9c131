#include "http.h"

/* libwebsockets has decoded the query and split it at each &: its pieces are "name=value". */
bool http_query(struct lws *wsi, struct span name, struct buf *out)
{
	for (int i = 0;; i++) {
		int n = lws_hdr_fragment_length(wsi, WSI_TOKEN_HTTP_URI_ARGS, i);
		if (n <= 0)
			return false;
		struct buf piece = {0};
		char *p = buf_room(&piece, (size_t)n + 1);
		n = lws_hdr_copy_fragment(wsi, p, n + 1, WSI_TOKEN_HTTP_URI_ARGS, i);
		bool found = n > (int)name.n && memcmp(p, name.p, name.n) == 0 && p[name.n] == '=';
		if (found)
			buf_add(out, p + name.n + 1, (size_t)n - name.n - 1);
		buf_release(&piece);
		if (found)
			return true;
	}
}

bool http_api_key(struct lws *wsi, struct buf *out)
{
	static const char NAME[] = "x-api-key:";
	int n = lws_hdr_custom_length(wsi, NAME, sizeof(NAME) - 1);

	if (n <= 0)
		return false;
	n = lws_hdr_custom_copy(wsi, buf_room(out, (size_t)n + 1), n + 1, NAME, sizeof(NAME) - 1);
	if (n <= 0)
		return false;
	buf_grew(out, (size_t)n);
	return true;
}
