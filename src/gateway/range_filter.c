#include "gateway/range_filter.h"

#include <stdlib.h>

#include "base/mem.h"
#include "codec/json.h"

static bool key_matches(const struct json_value *record, struct access_pattern *pattern)
{
	struct json_object_reader reader;
	struct json_member m;
	bool matches = false;

	if (record->type != JSON_OBJECT)
		return false;
	json_object_begin(&reader, record->text);
	while (!matches && json_object_next(&reader, &m) > 0) {
		if (m.value.type != JSON_STRING || !json_string_is(&m.name, SPAN("key")))
			continue;
		char *key = mem_alloc(m.value.text.n);
		size_t n = json_string_decode(&m.value, key);
		matches = access_pattern_match(pattern, (struct span){key, n}) == ACCESS_MATCH_YES;
		free(key);
	}
	return matches;
}

static int filter(const struct json_value *records, struct access_pattern *pattern, struct buf *out)
{
	struct json_array_reader reader;
	struct json_value record;
	int n = 0;

	json_array_begin(&reader, records);
	while (json_array_next(&reader, &record) > 0) {
		if (!key_matches(&record, pattern))
			continue;
		buf_addf(out, "%s", n++ ? "," : "");
		buf_add(out, record.text.p, record.text.n);
	}
	return n;
}

static bool find_records(struct span line, struct json_value *records)
{
	struct json_object_reader reader;
	struct json_member m;

	json_object_begin(&reader, line);
	while (json_object_next(&reader, &m) > 0) {
		*records = m.value;
		if (m.value.type == JSON_ARRAY && json_string_is(&m.name, SPAN("records")))
			return true;
	}
	return false;
}

bool range_filter(struct span line, struct access_pattern *pattern, struct buf *out)
{
	struct json_object_reader reader;
	struct json_value records;
	struct json_member m;
	struct buf left = {0};
	const char *between = "{";

	if (!find_records(line, &records))
		return false;
	int n = filter(&records, pattern, &left);
	json_object_begin(&reader, line);
	while (json_object_next(&reader, &m) > 0) {
		buf_addf(out, "%s", between);
		between = ",";
		if (json_string_is(&m.name, SPAN("records"))) {
			buf_addf(out, "\"records\":[");
			buf_add(out, buf_span(&left).p, buf_len(&left));
			buf_addf(out, "]");
		} else if (json_string_is(&m.name, SPAN("count"))) {
			buf_addf(out, "\"count\":%d", n);
		} else {
			buf_add(out, m.whole.p, m.whole.n);
		}
	}
	buf_addf(out, "}");
	buf_release(&left);
	return true;
}
