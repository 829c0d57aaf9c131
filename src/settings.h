/* settings.h - the configuration as each room wants it.
 *
 * One struct config serves the whole program; the rooms below get small structs of their own and
 * know nothing of files. Used at the start and again at each reload. Bounds that no setting names
 * stand here, beside those that one does. What is returned points into the config. */
#pragma once

#include <stdint.h>

#include "client.h"
#include "config.h"
#include "feed.h"
#include "listener.h"
#include "metrics.h"
#include "mint.h"
#include "router.h"
#include "upstream.h"

struct client_settings settings_clients(const struct config *c);
struct listener_settings settings_listener(const struct config *c);
struct metrics_settings settings_metrics(const struct config *c);
struct router_settings settings_router(const struct config *c);
struct feed_settings settings_feed(const struct config *c);
struct mint_settings settings_mint(const struct config *c);
struct upstream_settings settings_upstream(const struct config *c, uint64_t seed);
