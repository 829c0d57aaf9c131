/* reload.h - new settings while the daemon runs.
 *
 * A reload reads the configuration again, as at the start. Steps that can fail come first (the
 * file, the sockets, the trust anchors), so either all new settings are in force afterwards or
 * none. Clients, requests and the connection go on meanwhile. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>

#include "base/log.h"
#include "config/load.h"
#include "daemon/wiring.h"

struct reload {
	struct wiring *rooms;
	struct config_source source; /* where the configuration comes from */
	bool level_forced;           /* --log-level was given: level overrides the file's */
	enum log_level level;
	struct event *due; /* several requests before it runs are one */
};

/* The fields above it are set, and rooms->base is there. */
void reload_init(struct reload *r);
void reload_fini(struct reload *r); /* also of a zeroed one */

/* Reloads in the next turn of the loop, unless the daemon stops. */
void reload_request(struct reload *r);
