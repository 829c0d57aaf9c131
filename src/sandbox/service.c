#include "service.h"

#include "base/clock.h"
#include "codec/json.h"

void service_init(struct service *sv, const struct options *options)
{
	*sv = (struct service){
		.options = options, .store = store_new(), .n_keys = options->n_api_keys};
	for (unsigned i = 0; i < sv->n_keys; i++) {
		struct api_key *key = &sv->keys[i];
		key->text = options->api_keys[i];
		grant_secret(key->text, key->secret);
		rate_init(&key->rate, options->rate, clock_mono_ms());
	}
}

void service_fini(struct service *sv)
{
	store_free(sv->store);
}

struct api_key *service_key(struct service *sv, struct span text)
{
	for (unsigned i = 0; i < sv->n_keys; i++) {
		if (span_equal((struct span){sv->keys[i].text, strlen(sv->keys[i].text)}, text))
			return &sv->keys[i];
	}
	return NULL;
}

struct api_key *service_token(struct service *sv, struct span token, struct grant **grant)
{
	for (unsigned i = 0; i < sv->n_keys; i++) {
		struct grant *g = grant_verify(sv->keys[i].secret, token);
		if (!g)
			continue;
		if (g->expires_ms <= clock_wall_ms()) {
			grant_free(g);
			return NULL;
		}
		*grant = g;
		return &sv->keys[i];
	}
	return NULL;
}

bool service_may(struct api_key *key)
{
	return rate_take(&key->rate, clock_mono_ms());
}

void service_run(struct service *sv, struct api_key *key, const struct pattern *access,
		 const struct command *c, struct outcome *o)
{
	if (service_may(key)) {
		ops_run(sv->store, access, c, o);
	} else {
		*o = (struct outcome){0};
		ops_fail(o, 429, "Rate limit exceeded");
	}
}

/* A notification carries the whole new value, also after a patch, unless the options say otherwise.
 */
static void write_notification(const struct service *sv, const struct command *command,
			       struct buf *out)
{
	const struct record *r = store_get(sv->store, command->key);
	bool patch = command->op == OP_PATCH && sv->options->notify_patch;

	buf_addf(out, "{\"type\":\"notification\",\"key\":");
	json_add_string(out, command->key);
	buf_addf(out, ",\"value\":");
	if (r)
		json_add_string(out, patch ? command->value : r->value);
	else
		buf_addf(out, "null");
	buf_addf(out, ",\"timestamp\":%lld}", (long long)clock_wall_ms());
}

void service_publish(struct service *sv, const struct command *command, bool first)
{
	struct buf text = {0};

	if (first != sv->options->notify_first)
		return;
	for (struct subscriber *s = sv->subscribers; s; s = s->next) {
		if (!grant_subscribes(s->grant, command->key))
			continue;
		if (!buf_len(&text))
			write_notification(sv, command, &text);
		s->notify(s, buf_span(&text));
	}
	buf_release(&text);
}

void service_join(struct service *sv, struct subscriber *s)
{
	s->prev = NULL;
	s->next = sv->subscribers;
	if (s->next)
		s->next->prev = s;
	sv->subscribers = s;
}

void service_leave(struct service *sv, struct subscriber *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		sv->subscribers = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->prev = s->next = NULL;
}
