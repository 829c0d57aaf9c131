#include "transport/token_answer.h"

#include <limits.h>
#include <string.h>

#include "base/secret.h"
#include "codec/json.h"

bool token_answer_is_plain(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
			return false;
	}
	return true;
}

/* A NUL would end it before its end. */
static char *token_of(const struct json_value *value)
{
	char *token = secret_alloc(value->text.n); /* its quotes are room for more than the NUL */
	size_t n = json_string_decode(value, token);

	if (!n || strlen(token) != n || !token_answer_is_plain(token))
		secret_free(&token);
	return token;
}

char *token_answer_read(struct span text, int *expires_in_s)
{
	struct json_object_reader reader;
	struct json_member member;
	char *token = NULL;
	bool seen = false;
	int64_t seconds;

	json_object_begin(&reader, text);
	while (json_object_next(&reader, &member) > 0) {
		if (!seen && member.value.type == JSON_STRING &&
		    json_string_is(&member.name, SPAN("token"))) {
			seen = true;
			token = token_of(&member.value);
		} else if (member.value.type == JSON_NUMBER &&
			   json_string_is(&member.name, SPAN("expiresIn")) &&
			   json_number_integer(&member.value, 1, INT_MAX, &seconds)) {
			*expires_in_s = (int)seconds;
		}
	}
	return token;
}
