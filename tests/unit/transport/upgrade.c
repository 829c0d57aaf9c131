/* The request for the upgrade. Its answer: what is one, what is refused and why, however its bytes
 * come. */
#include "../test.h"

#include <errno.h>
#include <stdio.h>

#include "../randomness.h"
#include "base/secret.h"
#include "transport/upgrade.h"

/* The example of RFC 6455, 1.3. */
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
#define ACCEPT "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
#define GOOD "Upgrade: websocket\r\nConnection: Upgrade\r\n" ACCEPT

static int read_text(const char *text, struct upgrade *u, const char **why)
{
	struct span copy = copy_of(span_of(text));
	int got = upgrade_read(copy, key, u, why);

	free_copy(copy);
	return got;
}

static void requests(void **state)
{
	char one[UPGRADE_KEY], other[UPGRADE_KEY], want[400];
	char *request = upgrade_request("h:80", "/ws?token=t", one);

	(void)state;
	snprintf(want, sizeof(want),
		 "GET /ws?token=t HTTP/1.1\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
		 "Host: h:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Key: %.24s\r\nSec-WebSocket-Version: 13\r\n\r\n",
		 one);
	assert_string_equal(request, want);
	secret_free(&request);
	request = upgrade_request("h:80", "/ws?token=t", other);
	assert_memory_not_equal(one, other, UPGRADE_KEY);
	assert_memory_equal(other + UPGRADE_KEY - 2, "==", 2);
	secret_free(&request);
}

static void make_request(void)
{
	char one[UPGRADE_KEY];
	char *request = upgrade_request("h:80", "/ws", one);

	secret_free(&request);
}

static void without_randomness_there_is_no_key(void **state)
{
	(void)state;
	assert_true(aborts_without_randomness(make_request));
}

static void answers_that_agree(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 101 Switching Protocols\r\n" GOOD "\r\n",
		"HTTP/1.1 101\r\n" GOOD "\r\n",
		"HTTP/1.0 101 X\nupgrade:WEBSOCKET\nCONNECTION: keep-alive ,\tupgrade\n" ACCEPT
		"\n",
		"HTTP/1.1 101 X\r\nUpgrade: h2c, websocket\r\nConnection: close\r\n"
		"Connection: upgrade\r\n" ACCEPT "Content-Length: 0\r\n\r\n",
		"HTTP/1.1 101 X\r\nServer: a\r\n folded\r\n" GOOD
		"Sec-WebSocket-Extensions:\r\nSec-WebSocket-Protocol: \r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
		"HTTP/1.1 101 X\r\n" GOOD "\r\n",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(answers); i++) {
		struct upgrade u;
		const char *why = NULL;
		char behind[1000];

		for (size_t n = 0; n < strlen(answers[i]); n++) {
			struct span part = copy_of((struct span){answers[i], n});
			assert_int_equal(upgrade_read(part, key, &u, &why), 0);
			assert_null(why);
			free_copy(part);
		}
		snprintf(behind, sizeof(behind), "%sHTTP/1.1 200 frames\r\n\r\n", answers[i]);
		assert_int_equal(read_text(behind, &u, &why), 1);
		assert_int_equal(u.status, 101);
		assert_int_equal(u.head, strlen(answers[i]));
	}
}

static void refusals(void **state)
{
	static const struct {
		const char *answer, *retry_after;
		int status;
		uint64_t body;
	} cases[] = {
		{"HTTP/1.1 403 Forbidden\r\nContent-Length: 12\r\n\r\n", "", 403, 12},
		{"HTTP/1.1 429 No\r\nRETRY-AFTER:  7 \r\nContent-Length: 0\r\n\r\n", "7", 429, 0},
		{"HTTP/1.1 503 No\r\n\r\n", "", 503, UINT64_MAX},
		{"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", "",
		 500, UINT64_MAX},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", "", 200,
		 UINT64_MAX},
		{"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n", "", 200, 19},
		{"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "", 200, UINT64_MAX},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", "", 200, UINT64_MAX},
		{"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551609\r\n\r\n", "", 200,
		 UINT64_C(18446744073709551609)},
		{"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", "", 200,
		 UINT64_MAX},
		{"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551629\r\n\r\n", "", 200,
		 UINT64_MAX},
		{"HTTP/1.1 302 Found\r\n" GOOD "\r\n", "", 302, UINT64_MAX},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span copy = copy_of(span_of(cases[i].answer));
		struct upgrade u;
		const char *why = NULL;

		assert_int_equal(upgrade_read(copy, key, &u, &why), 1);
		assert_int_equal(u.status, cases[i].status);
		assert_true(u.body == cases[i].body);
		assert_span(u.retry_after, cases[i].retry_after);
		free_copy(copy);
	}
}

static void answers_that_are_none(void **state)
{
	static const char not_http[] = "the answer to the upgrade is not HTTP";
	static const struct {
		const char *answer, *why;
	} cases[] = {
		{"S", not_http},
		{"HTTP/2 101 X\r\n", not_http},
		{"HTTP/1.1 1O1 X\r\n", not_http},
		{"HTTP/1.1 099 X\r\n", not_http},
		{"HTTP/1.1 1011 X\r\n", not_http},
		{"HTTP/1.1 10\r\n", not_http},
		{"HTTP/1.1 101X\r\n", not_http},
		{"HTTP/1.\n", not_http},
		{"HTTP/1.1 101 X\r\nno colon\r\n", not_http},
		{"HTTP/1.1 100 X\r\n\r\nFrames", not_http},
		{"HTTP/1.1 101 X\r\nConnection: upgrade\r\n" ACCEPT "\r\n",
		 "the answer to the upgrade lacks Upgrade"},
		{"HTTP/1.1 101 X\r\nUpgrade: websockets\r\nConnection: upgrade\r\n" ACCEPT "\r\n",
		 "the answer is an upgrade to something else"},
		{"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n" ACCEPT "\r\n",
		 "the answer to the upgrade has a wrong Connection header"},
		{"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: up, updated\r\n" ACCEPT
		 "\r\n",
		 "the answer to the upgrade has a wrong Connection header"},
		{"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
		 "the answer to the upgrade lacks Sec-WebSocket-Accept"},
		{"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
		 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n\r\n",
		 "the answer to the upgrade has a wrong Sec-WebSocket-Accept"},
		{"HTTP/1.1 101 X\r\n" GOOD "Sec-WebSocket-Accept: x\r\n\r\n",
		 "the answer to the upgrade has a wrong Sec-WebSocket-Accept"},
		{"HTTP/1.1 101 X\r\n" GOOD "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
		 "the answer to the upgrade names an extension that was not offered"},
		{"HTTP/1.1 101 X\r\n" GOOD "Sec-WebSocket-Extensions: x\r\n\r\n",
		 "the answer to the upgrade names an extension that was not offered"},
		{"HTTP/1.1 101 X\r\n" GOOD "Sec-WebSocket-Protocol: x\r\n\r\n",
		 "the answer to the upgrade names a subprotocol that was not offered"},
		{"HTTP/1.1 101 X\r\n" GOOD "Sec-WebSocket-Protocol: chat\r\n\r\n",
		 "the answer to the upgrade names a subprotocol that was not offered"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct upgrade u;
		const char *why = NULL;

		assert_int_equal(read_text(cases[i].answer, &u, &why), -EPROTO);
		assert_string_equal(why, cases[i].why);
	}
	assert_int_equal(upgrade_read(SPAN("HTTP/1.1 101 X\r\nA: \0\r\n\r\n"), key,
				      &(struct upgrade){0}, &(const char *){NULL}),
			 -EPROTO);
}

static void too_long(void **state)
{
	char *text = malloc(UPGRADE_HEAD_MAX + 2);
	struct upgrade u;
	const char *why = NULL;

	(void)state;
	memset(text, 'x', UPGRADE_HEAD_MAX + 1);
	memcpy(text, "HTTP/1.1 101 ", 13);
	assert_int_equal(upgrade_read((struct span){text, UPGRADE_HEAD_MAX}, key, &u, &why), 0);
	assert_int_equal(upgrade_read((struct span){text, UPGRADE_HEAD_MAX + 1}, key, &u, &why),
			 -EPROTO);
	assert_string_equal(why, "the answer to the upgrade is too long");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),
		cmocka_unit_test(without_randomness_there_is_no_key),
		cmocka_unit_test(answers_that_agree),
		cmocka_unit_test(refusals),
		cmocka_unit_test(answers_that_are_none),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
