#include "config/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/secret.h"
#include "transport/trust.h"

enum { FAULTS_MAX = 50 };

void config_report_free(struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++)
		free(report->text[i]);
	free(report->text);
	*report = (struct config_report){0};
}

void config_report_add(struct config_report *report, const char *place, const char *message)
{
	struct buf b = {0};

	if (report->n > FAULTS_MAX)
		return;
	if (report->n == FAULTS_MAX)
		buf_addf(&b, "there are more faults: the rest is not shown");
	else
		buf_addf(&b, "%s %s", place, message);
	report->text = mem_resize(report->text, (report->n + 1) * sizeof(*report->text));
	report->text[report->n++] = mem_strndup(buf_span(&b).p, buf_len(&b));
	buf_release(&b);
}

static void free_words(struct config_words *words)
{
	for (size_t i = 0; i < words->n; i++)
		free(words->word[i]);
	free(words->word);
}

void config_free(struct config *config)
{
	if (!config)
		return;
	url_fini(&config->upstream.url);
	url_fini(&config->upstream.nexus_url);
	proxy_fini(&config->upstream.nexus_proxy);
	proxy_fini(&config->upstream.proxy);
	secret_free(&config->upstream.proxy_login);
	free(config->upstream.no_proxy_useless);
	url_fini(&config->upstream.token.url);
	proxy_fini(&config->upstream.token.proxy);
	free(config->upstream.token.path);
	free(config->upstream.token.header_file);
	secret_free(&config->upstream.api_key);
	free(config->upstream.api_key_source);
	free(config->upstream.ca_file);
	trust_unref(config->upstream.trust);
	free(config->upstream.access_pattern);
	free(config->listen.socket);
	free(config->cache.keys_text);
	free(config->cache.mirror_text);
	free_words(&config->cache.keys);
	free_words(&config->cache.mirrors);
	for (size_t i = 0; i < config->listen.n_http_addresses; i++)
		free(config->listen.http_address[i].address);
	free(config->listen.http_origins_text);
	origins_free(config->listen.http_origins);
	free(config->metrics.path);
	free(config->metrics.address);
	access_rules_free(config->access);
	for (int i = 0; i < CONFIG_EXPOSED_N; i++)
		free(config->exposed[i]);
	config_report_free(&config->warnings);
	free(config);
}

bool config_has_local_keys(const struct config *config)
{
	return config->listen.has_local_key || access_rules_have_keys(config->access);
}

void config_share_key(struct config *config, const struct config *before)
{
	char **key = &config->upstream.api_key;

	if (!*key || !before->upstream.api_key || strcmp(*key, before->upstream.api_key) != 0)
		return;
	secret_free(key);
	*key = secret_share(before->upstream.api_key);
}

void config_keep_trust(struct config *config, const struct config *former)
{
	if (memcmp(config->upstream.ca_digest, former->upstream.ca_digest,
		   sizeof(config->upstream.ca_digest)) != 0)
		return;
	trust_unref(config->upstream.trust);
	config->upstream.trust = trust_ref(former->upstream.trust);
}
