/* field.h - members of the daemon's status and stats, which are lines of JSON. */
#pragma once

#include <stdbool.h>

#include <hpkv.h>

#include "codec/json.h"

/* The member at a path, "upstream.state". false: there is none. */
bool field_find(struct span object, const char *path, struct json_value *value);

/* As a number; otherwise if there is none (null, say). */
double field_number(struct span object, const char *path, double otherwise);

/* As text for people, printable; "" if there is none or it is null. Two may be in use at a time. */
const char *field_text(struct span object, const char *path);
