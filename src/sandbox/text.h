/* text.h - validates UTF-8, which JSON strings must be. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

/* Are these bytes valid UTF-8? */
bool text_is_utf8(struct span bytes);
