/* text.h - what JSON strings can hold. */
#pragma once

#include <stdbool.h>

#include "base/span.h"

/* Are these bytes UTF-8? */
bool text_is_utf8(struct span bytes);
