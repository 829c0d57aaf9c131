/* references.h - resolves the references in the values of a draft: addresses, files, groups.
 *
 * Reads the key file, the proxy's login and the trust anchors, looks up the group, and compares
 * values that depend on each other. Each fault is in the draft's report. */
#pragma once

#include "config/draft.h"

void references_resolve(struct draft *d);
