/* origin.h - which web pages may use the gateway, and by which names of this machine.
 *
 * A browser sends requests to this machine for any page that it shows. So a request whose Host is a
 * name that a page's owner may have pointed here is refused (DNS rebinding), and so is one of a
 * page (Origin) that the administrator has not named. Only on TCP: no browser opens a Unix socket.
 */
#pragma once

#include <stdbool.h>

#include "base/span.h"

struct origins; /* as the setting lists them: "https://app.example http://localhost:3000" */

/* NULL with *why, a phrase, and *bad, the word that is meant. No words: no origins. */
struct origins *origins_new(const char *list, const char **why, struct span *bad);
void origins_free(struct origins *o);
bool origins_allow(const struct origins *o, struct span origin); /* NULL allows none */

/* Is this Host this machine's own, whatever its port: 127.…, [::1] or localhost? */
bool origin_is_local(struct span host);
