/* config.h - the configuration file, the environment and the key file, as one struct that is wholly
 * right.
 *
 * config_load() either gives a struct config in which every value is in its range, every name is
 * resolved and the key is read, or texts that name file, line and setting of all that is wrong;
 * there is no third way and no silent default. It changes nothing outside, so that a reload may try
 * a new file while the old settings stay in force.
 *
 * The settings themselves are one table in config.c: name, kind, range, default, place. What is not
 * here: watching files, and the rooms below the daemon, which get small settings structs of their
 * own (settings.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "access/access.h"
#include "base/buf.h"
#include "base/log.h"
#include "config/proxy.h"
#include "config/url.h"

#define CONFIG_NO_GROUP ((gid_t)-1)

/* Files that are open to more users than they should be. */
enum config_exposed {
	CONFIG_WRITABLE,    /* the configuration: everybody may write it ... */
	CONFIG_FOREIGN,     /* ... or it belongs to neither root nor this process's user */
	CONFIG_CA_WRITABLE, /* the same of ca_file */
	CONFIG_CA_FOREIGN,
	CONFIG_ORIGIN_OPEN, /* of the file that a credential was copied from */
	CONFIG_EXPOSED_N
};

/* What is wrong, each text whole and without a line end: "/etc/hpkvd/hpkvd.conf:12: [log] level:
 * 'loud' is not …". Zero it before use, free it afterwards. */
struct config_report {
	char **text;
	size_t n;
};
void config_report_free(struct config_report *report);

/* Times are in ms, sizes in bytes. All strings are owned by the config. */
struct config {
	struct {
		struct url url;
		struct proxy proxy;          /* on the way to it; host NULL: none */
		char *proxy_login;           /* "user:password", secret; NULL: none */
		char *no_proxy_useless;      /* an entry of NO_PROXY that means nothing; or NULL */
		char *api_key;               /* secret; wiped by config_free() */
		char *api_key_source;        /* where it is from: a file's path, or HPKV_API_KEY */
		char *ca_file;               /* NULL: the system's trust anchors alone */
		unsigned char ca_digest[32]; /* SHA-256 of what it holds */
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
	} upstream;
	struct {
		char *socket; /* absolute, fits a sockaddr_un */
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
		char *path;    /* of a socket, as listen.socket; or NULL */
		char *address; /* numeric, of this machine alone; both NULL: no page is served */
		uint16_t port;
	} metrics;
	struct {
		enum log_level level;
	} log;
	struct access_rules *access;     /* of all [access NAME] sections; NULL: there are none */
	struct config_report warnings;   /* what is valid, but of no effect; texts as of a report */
	bool has_file;                   /* it was read from one, and is not all defaults */
	bool has_text;                   /* ... which is not empty */
	char *exposed[CONFIG_EXPOSED_N]; /* their paths; NULL: it is not so */
};

/* What the environment said when the program started; it is asked once, so that a later reload
 * finds the same. */
struct config_environment {
	char *config_path;           /* HPKVD_CONFIG; NULL: not set, or empty, as all of these */
	char *base_url;              /* HPKV_BASE_URL */
	char *api_key;               /* HPKV_API_KEY; secret */
	char *https_proxy;           /* HTTPS_PROXY or https_proxy; may hold a password */
	char *no_proxy;              /* NO_PROXY or no_proxy */
	char *credentials_directory; /* CREDENTIALS_DIRECTORY, from systemd's LoadCredential= */
};

/* Copies the variables, and wipes key and URL from the environment: from environ and from the block
 * that /proc/PID/environ shows. Owned by the caller; config_environment_free() wipes the copy of
 * the key. */
struct config_environment *config_environment_take(void);
void config_environment_free(struct config_environment *environment);

struct config_source {
	const char *path; /* NULL: config_default_path() */
	bool required;    /* false: a missing file is as good as an empty one */
	bool filled;      /* an empty one is as bad as a missing one */
	bool at_once;     /* nobody is waited for who is yet to write to it, if it is a FIFO */
	const struct config_environment *environment; /* may be NULL */
};

/* Where the packaged file lies: $(sysconfdir)/hpkvd/hpkvd.conf */
const char *config_default_path(void);

/* 0: *out is a new config, owned by the caller. -EINVAL (wrong) or another -errno (the file could
 * not be read): report holds at least one text. */
int config_load(const struct config_source *source, struct config **out,
		struct config_report *report);
void config_free(struct config *config);

/* Appends " [section] name" for each setting that differs, a comma between them, the sections of
 * access rules being one setting. Returns whether it
 * takes another connection to the service: for another address or key, other trust anchors, or
 * tokens of another kind. Secrets are compared, not shown. */
bool config_compare(const struct config *a, const struct config *b, struct buf *names);
/* A key that is the same as before is held once, by both. */
void config_share_key(struct config *config, const struct config *before);
