#include "config/doors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/secret.h"
#include "config/keyfile.h"
#include "config/proxy.h"
#include "config/url.h"

/* ---- addresses ---- */

char *doors_loopback(const char *text, uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	int64_t number;

	if (!colon || colon == text || !setting_parse_count(colon + 1, &number) || number < 1 ||
	    number > UINT16_MAX)
		return NULL;
	bool brackets = text[0] == '[' && colon[-1] == ']';
	char *host = mem_strndup(text + brackets, (size_t)(colon - text) - 2 * (size_t)brackets);
	if (!url_is_loopback(host) || brackets != (strchr(host, ':') != NULL)) {
		free(host);
		return NULL;
	}
	*port = (uint16_t)number;
	if (strcasecmp(host, "localhost") != 0)
		return host;
	free(host);
	return mem_strdup("127.0.0.1");
}

static void add_address(struct draft *d, const char *word)
{
	struct config *c = &d->values->config;
	struct config_address at = {0};

	at.address = doors_loopback(word, &at.port);
	if (!at.address) {
		draft_fault(d, SET_HTTP_ADDRESS,
			    "'%.*s' is not 127.0.0.1:PORT, [::1]:PORT or localhost:PORT: it is for "
			    "programs of this machine alone, since it is not encrypted",
			    setting_shown(word), word);
		return;
	}
	for (size_t i = 0; i < c->listen.n_http_addresses; i++) {
		const struct config_address *other = &c->listen.http_address[i];
		if (other->port == at.port && strcmp(other->address, at.address) == 0)
			draft_fault(d, SET_HTTP_ADDRESS, "'%.*s' is there twice",
				    setting_shown(word), word);
	}
	if (c->listen.n_http_addresses == CONFIG_ADDRESSES_MAX)
		draft_fault(d, SET_HTTP_ADDRESS, "has more than %d addresses",
			    CONFIG_ADDRESSES_MAX);
	if (d->bad[SET_HTTP_ADDRESS])
		free(at.address);
	else
		c->listen.http_address[c->listen.n_http_addresses++] = at;
}

static void resolve_addresses(struct draft *d)
{
	char *rest = d->values->http_address, *word;

	while (!d->bad[SET_HTTP_ADDRESS] && (word = strsep(&rest, " \t"))) {
		if (*word)
			add_address(d, word);
	}
}

static void resolve_origins(struct draft *d)
{
	struct config *c = &d->values->config;
	const char *why;
	struct span bad;

	if (d->bad[SET_HTTP_ORIGINS])
		return;
	c->listen.http_origins = origins_new(c->listen.http_origins_text, &why, &bad);
	if (!c->listen.http_origins)
		draft_fault(d, SET_HTTP_ORIGINS, "'%.*s' %s", (int)(bad.n < 80 ? bad.n : 80), bad.p,
			    why);
}

/* ---- keys ---- */

static bool read_key(struct draft *d, const char *file, struct local_key *key, char **path,
		     const char **why)
{
	const struct config_environment *e = d->environment;
	char *text;

	*path = draft_resolve_path(d, e ? e->credentials_directory : NULL, file);
	int error = keyfile_read(*path, keyfile_local_fault, &text, why);
	if (error == -ENOENT)
		*why = "does not exist";
	if (error)
		return false;
	*key = local_key_of((struct span){text, strlen(text)});
	secret_free(&text);
	return true;
}

bool doors_section_key(struct draft *d, unsigned line, const char *section, const char *file,
		       struct local_key *key)
{
	const char *why;
	char *path;
	bool there = read_key(d, file, key, &path, &why);

	if (there) {
		d->keys = mem_resize(d->keys, (d->n_keys + 1) * sizeof(*d->keys));
		d->keys[d->n_keys++] = (struct draft_key){*key, line, mem_strdup(section)};
	} else {
		draft_fault_in_line(d, line, "[access %s] local_key_file: the file %s %s", section,
				    path, why);
	}
	free(path);
	return there;
}

/* The service's key opens everything there, and whoever has lost it has to change it there. */
static bool is_api_key(const struct draft *d, const struct local_key *key)
{
	const char *api_key = d->values->config.upstream.api_key;

	if (!api_key)
		return false;
	struct local_key service = local_key_of((struct span){api_key, strlen(api_key)});
	return local_key_same(&service, key);
}

static const char is_services[] =
	"holds the API key of the service: local programs get keys of their own";

static void resolve_key(struct draft *d)
{
	struct config *c = &d->values->config;
	const char *file = d->values->local_key_file, *why;
	char *path;

	if (d->bad[SET_LOCAL_KEY_FILE] || !file[0])
		return;
	if (c->access) {
		draft_fault(d, SET_LOCAL_KEY_FILE,
			    "there are [access NAME] sections: set it there, each has its own");
		return;
	}
	if (!read_key(d, file, &c->listen.local_key, &path, &why))
		draft_fault(d, SET_LOCAL_KEY_FILE, "the file %s %s", path, why);
	else if (is_api_key(d, &c->listen.local_key))
		draft_fault(d, SET_LOCAL_KEY_FILE, "the file %s %s", path, is_services);
	else
		c->listen.has_local_key = true;
	free(path);
}

static void check_keys(struct draft *d)
{
	const struct config *c = &d->values->config;

	for (size_t i = 0; i < d->n_keys; i++) {
		if (is_api_key(d, &d->keys[i].key))
			draft_fault_in_line(d, d->keys[i].line,
					    "[access %s] local_key_file: the file %s",
					    d->keys[i].section, is_services);
	}
	/* A key that was refused is told of already. */
	if (c->listen.n_http_addresses && !config_has_local_keys(c) && !d->report->n)
		draft_fault(d, SET_HTTP_ADDRESS,
			    "there is no local key, without which nobody may use it: set "
			    "local_key_file %s",
			    c->access ? "in an [access NAME] section" : "beside it");
}

/* ---- all of it ---- */

static void resolve_nexus_url(struct draft *d)
{
	const struct config_environment *e = d->environment;
	struct url *url = &d->values->config.upstream.nexus_url;
	const char *why, *text = d->values->nexus_url;

	if (d->bad[SET_NEXUS_URL] || !text[0])
		return;
	if (url_parse(text, url, &why) < 0)
		draft_fault(d, SET_NEXUS_URL, "%s", why);
	else if (!d->values->config.upstream.api_key && !d->report->n)
		draft_fault(d, SET_NEXUS_URL,
			    "requests to HPKV Nexus need the API key, and there is none");
	else if (e && e->https_proxy && url->tls &&
		 !proxy_is_bypassed(e->no_proxy, url->host, url->port) &&
		 proxy_parse(e->https_proxy, &d->values->config.upstream.nexus_proxy, &why) < 0 &&
		 !d->report->n) /* else it may be said already */
		config_report_add(d->report, "HTTPS_PROXY:", why);
}

void doors_resolve(struct draft *d)
{
	resolve_addresses(d);
	resolve_origins(d);
	resolve_key(d);
	resolve_nexus_url(d);
	check_keys(d);
}

void doors_release(struct draft *d)
{
	for (size_t i = 0; i < d->n_keys; i++)
		free(d->keys[i].section);
	free(d->keys);
}
