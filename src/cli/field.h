/* field.h - reads members of the daemon's status and stats, which are lines of JSON. */
#pragma once

#include <stdbool.h>

#include <hpkv.h>

#include "codec/json.h"

/* Finds the member at a path such as "upstream.state". false: there is none. */
bool field_find(struct span object, const char *path, struct json_value *value);

/* The member as a number; otherwise if it is missing or no number (null, say). */
double field_number(struct span object, const char *path, double otherwise);

/* The member as printable text; "" if it is missing or null. The last two results stay valid. */
const char *field_text(struct span object, const char *path);
