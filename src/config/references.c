#include "config/references.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/sha.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/secret.h"
#include "config/doors.h"
#include "config/file.h"
#include "config/globs.h"
#include "config/keyfile.h"
#include "config/proxy.h"
#include "config/url.h"
#include "transport/trust.h"

enum { CA_FILE_MAX = 4 << 20 };

static void check_order(struct draft *d)
{
	enum setting_id low, high;

	for (unsigned i = 0; setting_pair(i, &low, &high); i++) {
		struct buf first = {0}, second = {0};

		if (d->bad[low] || d->bad[high] ||
		    setting_number(d->values, low) <= setting_number(d->values, high))
			continue;
		setting_print(d->values, low, &first);
		setting_print(d->values, high, &second);
		/* Name the line that was written last. */
		draft_fault(d, d->given[low] > d->given[high] ? low : high,
			    "%s (%.*s) is greater than %s (%.*s)", setting_name(low),
			    (int)buf_len(&first), buf_span(&first).p, setting_name(high),
			    (int)buf_len(&second), buf_span(&second).p);
		buf_release(&first);
		buf_release(&second);
	}
}

static void resolve_url(struct draft *d)
{
	const struct config_environment *e = d->environment;
	struct url *url = &d->values->config.upstream.url;
	const char *why, *text = d->values->url;

	if (d->bad[SET_URL])
		return;
	if (text[0]) {
		if (url_parse(text, url, &why) < 0)
			draft_fault(d, SET_URL, "%s", why);
	} else if (e && e->base_url) {
		if (url_parse(e->base_url, url, &why) < 0)
			config_report_add(d->report, "HPKV_BASE_URL:", why);
	} else {
		draft_fault(d, SET_URL,
			    "is missing: give the base URL that the HPKV dashboard shows, e.g. "
			    "https://api-eu-2.hpkv.io, here or in HPKV_BASE_URL");
	}
}

/* The proxy on the way to this URL, if it is known. A server that is not encrypted is on this
 * machine. Returns whether there is a faulty one. */
static bool find_proxy(struct draft *d, const struct url *url, struct proxy *proxy)
{
	const struct config_environment *e = d->environment;
	const char *why;

	if (!e || !e->https_proxy || !url->host || !url->tls ||
	    proxy_is_bypassed(e->no_proxy, url->host, url->port))
		return false;
	if (proxy_parse(e->https_proxy, proxy, &why) == 0)
		return false;
	config_report_add(d->report, "HTTPS_PROXY:", why);
	return true;
}

static void resolve_proxy(struct draft *d)
{
	const struct config_environment *e = d->environment;
	struct config *c = &d->values->config;

	if (e && e->https_proxy &&
	    ((c->upstream.url.host && c->upstream.url.tls) || c->upstream.token.url.tls))
		c->upstream.no_proxy_useless = proxy_useless_entry(e->no_proxy);
	if (!find_proxy(d, &c->upstream.url, &c->upstream.proxy))
		find_proxy(d, &c->upstream.token.url, &c->upstream.token.proxy);
}

static void check_headers(struct draft *d, const char *path)
{
	const char *why;
	char *lines;
	int error = keyfile_read(path, keyfile_headers_fault, &lines, &why);

	if (error)
		draft_fault(d, SET_TOKEN_HEADER_FILE, "the file %s %s", path,
			    error == -ENOENT ? "does not exist" : why);
	else
		secret_free(&lines);
}

static char *service_token_path(const struct url *url)
{
	struct buf b = {0};

	buf_addf(&b, "%s/token/websocket", url->path_prefix ? url->path_prefix : "");
	char *path = mem_strndup(buf_span(&b).p, buf_len(&b));
	buf_release(&b);
	return path;
}

/* Who asks an endpoint for tokens has no API key. The file is read again for each request. */
static void resolve_token_url(struct draft *d)
{
	const struct config_environment *e = d->environment;
	struct config *c = &d->values->config;
	const char *why, *headers = d->values->token_header_file;

	if (d->bad[SET_TOKEN_URL] || d->bad[SET_TOKEN_HEADER_FILE])
		return;
	if (!d->values->token_url[0]) {
		if (headers[0])
			draft_fault(d, SET_TOKEN_HEADER_FILE, "means nothing without token_url");
		c->upstream.token.path = service_token_path(&c->upstream.url);
		return;
	}
	if (url_parse_page(d->values->token_url, &c->upstream.token.url, &why) < 0)
		draft_fault(d, SET_TOKEN_URL, "%s", why);
	else
		c->upstream.token.path = mem_strdup(c->upstream.token.url.path_prefix);
	if (d->given[SET_API_KEY_FILE])
		draft_fault(d, SET_API_KEY_FILE,
			    "is set beside token_url: who asks there for tokens "
			    "has no API key");
	if (e && e->api_key)
		config_report_add(d->report, "HPKV_API_KEY:",
				  "is set beside [upstream] token_url: who asks there for tokens "
				  "has no API key");
	if (!headers[0])
		return;
	c->upstream.token.header_file =
		draft_resolve_path(d, e ? e->credentials_directory : NULL, headers);
	check_headers(d, c->upstream.token.header_file);
}

static void resolve_proxy_login(struct draft *d)
{
	const struct config_environment *e = d->environment;
	const char *why;

	if (d->bad[SET_PROXY_CREDENTIALS] || !d->values->proxy_file[0])
		return;
	char *path =
		draft_resolve_path(d, e ? e->credentials_directory : NULL, d->values->proxy_file);
	int error = keyfile_read(path, keyfile_login_fault, &d->values->config.upstream.proxy_login,
				 &why);
	if (error)
		draft_fault(d, SET_PROXY_CREDENTIALS, "the file %s %s", path,
			    error == -ENOENT ? "does not exist" : why);
	free(path);
}

static void key_from_environment(struct draft *d, const char *path)
{
	const struct config_environment *e = d->environment;
	const char *why;

	if (!e || !e->api_key) {
		draft_fault(
			d, SET_API_KEY_FILE,
			"there is no key file %s: write the API key that the HPKV dashboard shows "
			"into it "
			"(chmod 0600), or set HPKV_API_KEY",
			path);
	} else if ((why = keyfile_fault(e->api_key))) {
		config_report_add(d->report, "HPKV_API_KEY:", why);
	} else {
		d->values->config.upstream.api_key = secret_share(e->api_key);
		d->values->config.upstream.api_key_source = mem_strdup("HPKV_API_KEY");
	}
}

/* systemd copies a credential even if everybody can read the original, which mostly is the file
 * that holds the key without systemd. */
static void look_behind_credential(struct draft *d, const char *path)
{
	char *origin = draft_resolve_path(d, NULL, d->values->key_file);
	struct stat st;

	if (strcmp(origin, path) != 0 && stat(origin, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_mode & S_IRWXO)
		d->values->config.exposed[CONFIG_ORIGIN_OPEN] = origin;
	else
		free(origin);
}

static void resolve_key(struct draft *d)
{
	const struct config_environment *e = d->environment;
	const char *why;

	if (d->bad[SET_API_KEY_FILE] || d->values->token_url[0])
		return;
	char *path =
		draft_resolve_path(d, e ? e->credentials_directory : NULL, d->values->key_file);
	int error = keyfile_read(path, keyfile_fault, &d->values->config.upstream.api_key, &why);
	if (error == -ENOENT)
		key_from_environment(d, path);
	else if (error)
		draft_fault(d, SET_API_KEY_FILE, "the key file %s %s", path, why);
	else
		d->values->config.upstream.api_key_source = mem_strdup(path);
	look_behind_credential(d, path);
	free(path);
}

/* Checks trust anchors, so that a fault is told early and with its line. They are read again where
 * they are used. NULL: they are valid. */
static const char *certificates_fault(struct span text)
{
	BIO *pem = BIO_new_mem_buf(text.p, (int)text.n);
	int n = pem ? trust_read(pem, NULL) : -ENOMEM;

	BIO_free(pem);
	if (n < 0)
		return n == -ENOMEM ? "could not be checked: out of memory"
				    : "holds a damaged certificate";
	return n ? NULL : "holds no certificate in PEM form";
}

static void resolve_ca_file(struct draft *d)
{
	char **place = &d->values->config.upstream.ca_file, *path = *place;
	const char *why = NULL;
	struct buf b = {0};
	struct stat st;

	*place = NULL;
	if (path && path[0]) {
		*place = draft_resolve_path(d, NULL, path);
		int fd = file_open(*place, FILE_REGULAR, &st),
		    error = fd < 0 ? fd : file_read(fd, CA_FILE_MAX, &b);
		if (error)
			why = error == -EINVAL ? "is not a regular file" : strerror(-error);
		else
			why = buf_len(&b) ? certificates_fault(buf_span(&b)) : "is empty";
		SHA256((const unsigned char *)buf_span(&b).p, buf_len(&b),
		       d->values->config.upstream.ca_digest);
		if (why)
			draft_fault(d, SET_CA_FILE, "%s: %s", *place, why);
		else
			draft_note_exposure(d, *place, &st, CONFIG_CA_WRITABLE, CONFIG_CA_FOREIGN);
		if (fd >= 0)
			close(fd);
		buf_release(&b);
	}
	d->values->config.upstream.trust = trust_new(*place);
	free(path);
}

/* Can a socket be bound there? */
static bool is_socket_path(struct draft *d, enum setting_id id, const char *path)
{
	size_t room = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	bool absolute = path[0] == '/' && path[strlen(path) - 1] != '/';

	if (!absolute)
		draft_fault(d, id, "'%.*s' is not the absolute path of a socket",
			    setting_shown(path), path);
	else if (strlen(path) > room)
		draft_fault(d, id,
			    "is longer than %zu bytes, the most that a socket's path can have",
			    room);
	return !d->bad[id];
}

static void check_socket(struct draft *d)
{
	if (!d->bad[SET_SOCKET])
		is_socket_path(d, SET_SOCKET, d->values->config.listen.socket);
}

/* A name, or a number as chgrp(1) takes it. */
static void resolve_group(struct draft *d)
{
	const char *name = d->values->group;
	gid_t *out = &d->values->config.listen.group;
	int64_t number;

	*out = CONFIG_NO_GROUP;
	if (d->bad[SET_GROUP] || !name[0])
		return;
	errno = 0;
	const struct group *group = getgrnam(name);
	if (group)
		*out = group->gr_gid;
	else if (setting_parse_count(name, &number) && number < (int64_t)CONFIG_NO_GROUP)
		*out = (gid_t)number;
	else
		draft_fault(d, SET_GROUP, "there is no group '%.*s'", setting_shown(name), name);
}

static void resolve_metrics(struct draft *d)
{
	struct config *c = &d->values->config;
	const char *text = d->values->metrics;

	if (d->bad[SET_METRICS_LISTEN] || !text[0])
		return;
	if (text[0] == '/' && !is_socket_path(d, SET_METRICS_LISTEN, text))
		return;
	if (text[0] == '/' && strcmp(text, c->listen.socket) == 0)
		draft_fault(d, SET_METRICS_LISTEN, "is the same as [listen] socket");
	else if (text[0] == '/')
		c->metrics.path = mem_strdup(text);
	else if (!(c->metrics.address = doors_loopback(text, &c->metrics.port)))
		draft_fault(
			d, SET_METRICS_LISTEN,
			"'%.*s' is not 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or the absolute "
			"path of a socket: the page is for this machine alone",
			setting_shown(text), text);
}

void references_resolve(struct draft *d)
{
	static void (*const steps[])(struct draft *) = {
		check_order,         resolve_url,     resolve_token_url, resolve_proxy,
		resolve_proxy_login, resolve_key,     resolve_ca_file,   check_socket,
		resolve_group,       resolve_metrics, globs_resolve,     doors_resolve,
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		steps[i](d);
}
