#include "access/token_grant.h"

#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"

void token_holder_set(struct token_holder *h, const struct peer_identity *who)
{
	*h = (struct token_holder){.known = who->known,
				   .by_key = who->by_key,
				   .has_key = who->key != NULL,
				   .uid = who->uid,
				   .gid = who->gid};
	if (who->key)
		h->key = *who->key;
	h->n_groups =
		who->n_groups < TOKEN_HOLDER_GROUPS_MAX ? who->n_groups : TOKEN_HOLDER_GROUPS_MAX;
	if (h->n_groups)
		memcpy(h->groups, who->groups, h->n_groups * sizeof(*h->groups));
}

struct peer_identity token_holder_identity(const struct token_holder *h)
{
	return (struct peer_identity){.known = h->known,
				      .uid = h->uid,
				      .gid = h->gid,
				      .groups = h->groups,
				      .n_groups = h->n_groups,
				      .by_key = h->by_key,
				      .key = h->has_key ? &h->key : NULL};
}

static void add(struct buf *list, struct span text)
{
	if (buf_len(list))
		buf_add(list, ",", 1);
	buf_add(list, text.p, text.n);
}

static void read_list(struct token_grant *g, const struct json_value *list)
{
	struct json_array_reader reader;
	struct json_value name;
	struct buf plain = {0};

	if (!list->text.p)
		return;
	json_array_begin(&reader, list);
	while (json_array_next(&reader, &name) > 0) {
		char *room = buf_room(&plain, name.text.n);
		size_t n = json_string_decode(&name, room);
		if (n == 0)
			continue; /* the service has no empty key, and a subscribe none either */
		if (room[0] == '^')
			g->has_regex = true;
		else
			add(memchr(room, '*', n) ? &g->globs : &g->keys, name.text);
	}
	buf_release(&plain);
}

int token_grant_read(struct token_grant *g, const struct request *r,
		     char why[ACCESS_PATTERN_WHY_MAX])
{
	read_list(g, &r->subscribe_keys);
	read_list(g, &r->subscribe_patterns);
	if (!r->access_pattern.text.p)
		return 0;
	char *plain = mem_alloc(r->access_pattern.text.n);
	struct span text = {plain, json_string_decode(&r->access_pattern, plain)};
	g->pattern = access_pattern_new(text, why);
	free(plain);
	return g->pattern ? 0 : -EINVAL;
}

void token_grant_fini(struct token_grant *g)
{
	buf_release(&g->keys);
	buf_release(&g->globs);
	access_pattern_free(g->pattern);
	*g = (struct token_grant){0};
}

void token_grant_subscribe(const struct token_grant *g, struct span members, struct buf *line)
{
	if (!buf_len(&g->keys) && !buf_len(&g->globs))
		return;
	buf_addf(line, "{\"op\":\"subscribe\",\"keys\":[");
	buf_add(line, buf_span(&g->keys).p, buf_len(&g->keys));
	buf_addf(line, "],\"patterns\":[");
	buf_add(line, buf_span(&g->globs).p, buf_len(&g->globs));
	buf_addf(line, "]");
	buf_add(line, members.p, members.n);
	buf_addf(line, "}");
}
