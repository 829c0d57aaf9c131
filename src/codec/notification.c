#include "codec/notification.h"

static uint64_t not_zero(uint64_t hash)
{
	return hash ? hash : 1;
}

uint64_t notification_key_hash(const struct json_value *key, uint64_t seed)
{
	return not_zero(json_string_hash(key, seed));
}

uint64_t notification_bytes_hash(struct span key, uint64_t seed)
{
	return not_zero(json_bytes_hash(key, seed));
}

uint64_t notification_value_hash(const struct json_value *value, uint64_t seed)
{
	if (!value->text.p || value->type == JSON_NULL)
		return not_zero(json_bytes_hash(SPAN(""), ~seed)); /* the hash of no string */
	if (value->type == JSON_STRING)
		return not_zero(json_string_hash(value, seed));
	return not_zero(json_bytes_hash(value->text, seed));
}

struct notification notification_of(const struct wire_frame *frame, uint64_t seed)
{
	struct notification change = {
		.key_hash = notification_key_hash(&frame->key, seed),
		.value_hash = notification_value_hash(&frame->value, seed),
		.text = frame->text,
	};

	if (frame->timestamp.text.p && frame->timestamp.type == JSON_NUMBER)
		json_number_integer(&frame->timestamp, 0, INT64_MAX, &change.timestamp);
	return change;
}
