/* settings.h - the configuration as each room wants it.
 *
 * The rooms below the daemon get small structs of their own and know nothing of files. Used at the
 * start and at each reload. Bounds without a setting of their own are constants here. The structs
 * point into the config. */
#pragma once

#include <stdint.h>

#include "cache/cache.h"
#include "clients/client.h"
#include "config/config.h"
#include "gateway/http.h"
#include "subscriptions/subscriptions.h"
#include "clients/listener.h"
#include "service/metrics_page.h"
#include "access/nexus.h"
#include "access/token_minter.h"
#include "requests/router.h"
#include "upstream/upstream.h"

struct cache_settings settings_cache(const struct config *c);
/* Changes what the configuration says. */
void settings_http(const struct config *c, struct http_settings *http);
struct client_settings settings_clients(const struct config *c, const struct http_settings *http);
struct listener_settings settings_listener(const struct config *c);
struct metrics_page_settings settings_metrics(const struct config *c);
struct router_settings settings_router(const struct config *c);
struct subscriptions_settings settings_subscriptions(const struct config *c);
struct token_minter_settings settings_token_minter(const struct config *c);
struct nexus_settings settings_nexus(const struct config *c);
struct upstream_settings settings_upstream(const struct config *c, uint64_t seed);
