/* config.h - the configuration as one struct, and lists of faults.
 *
 * Made by config_load() (load.h), with all values checked; the rows of the settings are in
 * settings_table.c. Rooms below the daemon get small settings structs of their own (settings.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "access/access.h"
#include "gateway/origin.h"
#include "base/buf.h"
#include "base/log.h"
#include "config/proxy.h"
#include "config/url.h"

#define CONFIG_NO_GROUP ((gid_t)-1)
enum { CONFIG_ADDRESSES_MAX = 8 }; /* of http_address */

/* Files that more users can write or read than should. */
enum config_exposed {
	CONFIG_WRITABLE,    /* the configuration: everybody may write it ... */
	CONFIG_FOREIGN,     /* ... or it belongs to neither root nor this process's user */
	CONFIG_CA_WRITABLE, /* the same of ca_file */
	CONFIG_CA_FOREIGN,
	CONFIG_ORIGIN_OPEN, /* of the file that a credential was copied from */
	CONFIG_EXPOSED_N
};

/* Faults, each a text without a line end: "/etc/hpkvd/hpkvd.conf:12: [log] level: 'loud' is not …".
 * Zero it before use, free it afterwards. */
struct trust;

struct config_report {
	char **text;
	size_t n;
};
void config_report_free(struct config_report *report);
/* Adds "place message". Fifty texts are enough to show that this is the wrong file; no more are
 * kept.
 */
void config_report_add(struct config_report *report, const char *place, const char *message);

/* The parts of a value that is a list. */
struct config_words {
	char **word;
	size_t n;
};

/* Requests that wait to be sent and go as one, if they are for the same key. */
enum config_combine { CONFIG_COMBINE_GETS = 1, CONFIG_COMBINE_INCREMENTS = 2 };

/* Times are in ms, sizes in bytes. All strings are owned by the config. */
struct config {
	struct {
		struct url url;
		struct url nexus_url;       /* of HPKV Nexus; host NULL: none */
		struct proxy nexus_proxy;   /* on the way to it; host NULL: none */
		struct proxy proxy;         /* on the way to it; host NULL: none */
		char *proxy_login;          /* "user:password", secret; NULL: none */
		char *no_proxy_useless;     /* an entry of NO_PROXY that means nothing; or NULL */
		struct {                    /* where tokens are asked for */
			struct url url;     /* of the page; text NULL: the service makes them */
			struct proxy proxy; /* on the way there; host NULL: none */
			char *path;         /* that is posted to */
			char *header_file;  /* lines sent along, read for each; NULL: none */
		} token;
		char *api_key;        /* NULL: there is none, but a token.url; secret; wiped by
					 config_free() */
		char *api_key_source; /* where it is from: a file's path, or HPKV_API_KEY */
		char *ca_file;        /* NULL: the system's trust anchors alone */
		unsigned char ca_digest[32]; /* SHA-256 of its content */
		struct trust *trust;         /* the system's and those of ca_file */
		char *access_pattern;        /* a regex as text; "": none is sent */
		unsigned subscribe_fields;   /* of enum token_client_fields */
		unsigned rate_limit;         /* requests/s; 0: as the service allows */
		unsigned max_in_flight;
		size_t max_frame;   /* of a request, as it is sent */
		size_t max_message; /* of the service */
		size_t max_held;    /* of its notifications, while connections are compared */
		int64_t connect_timeout_ms;
		int64_t request_timeout_ms;
		int64_t keepalive_ms;
		int64_t backoff_min_ms, backoff_max_ms; /* min <= max */
		int64_t token_lifetime_ms;
		int64_t subscribe_batch_ms;
		unsigned combine; /* of enum config_combine */
	} upstream;
	struct {
		unsigned http; /* 0: lines alone on the socket */
		struct config_address {
			char *address; /* numeric, of this machine alone */
			uint16_t port;
		} http_address[CONFIG_ADDRESSES_MAX];
		size_t n_http_addresses;
		char *http_origins_text;
		struct origins *http_origins; /* of web pages that may use these */
		struct local_key local_key;   /* where there are no access rules; ... */
		bool has_local_key;           /* ... or there is none */
		char *socket;                 /* absolute, fits a sockaddr_un */
		mode_t mode;
		gid_t group; /* CONFIG_NO_GROUP: left as it is */
		unsigned max_clients;
		size_t max_line;
		unsigned max_pipeline;
		size_t output_soft, output_hard; /* soft <= hard */
		size_t max_queued;               /* requests that wait to be sent, of all clients */
		size_t max_client_queued;        /* ... of one */
		unsigned max_subscriptions, max_client_subscriptions;
		unsigned max_topics; /* different keys and patterns */
		size_t subscription_memory;
		unsigned max_token_requests;
	} listen;
	struct {
		char *keys_text, *mirror_text;     /* as in the file */
		struct config_words keys, mirrors; /* their globs */
		size_t memory;
		int64_t max_age_ms, max_stale_ms;
		unsigned trust; /* 1: a notification's value is the stored value */
	} cache;
	struct {
		char *path;    /* of a socket, as listen.socket; or NULL */
		char *address; /* numeric, of this machine alone; both NULL: no page is served */
		uint16_t port;
	} metrics;
	struct {
		enum log_level level;
	} log;
	struct access_rules *access;     /* of all [access NAME] sections; NULL: there are none */
	struct config_report warnings;   /* settings that are valid, but have no effect */
	bool has_file;                   /* it was read from a file, and is not all defaults */
	bool has_text;                   /* ... which is not empty */
	char *exposed[CONFIG_EXPOSED_N]; /* their paths; NULL: the file is as it should be */
};

void config_free(struct config *config);
/* If ca_file holds the same as before, its certificates and the system's are not read again. */
void config_keep_trust(struct config *config, const struct config *former);
/* Is there a local key, of whatever section or of none? */
bool config_has_local_keys(const struct config *config); /* NULL: nothing */

/* If both have the same key, config shares that of before, so that it is held once. */
void config_share_key(struct config *config, const struct config *before);
