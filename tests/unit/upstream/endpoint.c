/* Where connections lead to: how long an endpoint and its TLS context stay, and what belongs to
 * it. Over contexts that are counted, and a loop that each case controls. */
#include "../test.h"

#include "../locked.h"
#include "../loop.h"
#include "base/mem.h"
#include "base/secret.h"
#include "transport/websocket.h"
#include "upstream/endpoint.h"

/* ---- TLS contexts ---- */

static unsigned made, left;
static struct event_base *base_seen;

struct websocket_context *websocket_context_new(struct event_base *base, struct trust *trust,
						const char **why)
{
	base_seen = base;
	if (trust) {
		*why = "there is no such file";
		return NULL;
	}
	made++;
	left++;
	return mem_alloc(1);
}

void websocket_context_free(struct websocket_context *ctx)
{
	left--;
	free(ctx);
}

/* ---- endpoints ---- */

static struct event_base *const base = (struct event_base *)&made; /* is only passed on */
static struct stats stats;
static struct endpoints endpoints;
static long locked_before;
static const unsigned char no_file[CA_DIGEST_SIZE], a_file[CA_DIGEST_SIZE] = {[31] = 1};

static struct endpoint *make(const unsigned char *digest)
{
	const struct endpoint_settings s = {
		.shown = "url",
		.conn = {.host = "service", .port = 443, .keepalive_ms = 2000},
		.ca_digest = digest};
	const char *why = NULL;
	struct endpoint *endpoint = endpoint_new(&endpoints, &s, &why);

	assert_non_null(endpoint);
	assert_null(why);
	return endpoint;
}

static int begin(void **state)
{
	(void)state;
	made = left = 0;
	locked_before = locked_kb();
	loop_begin(1000, 1);
	endpoints_init(&endpoints, base, &stats);
	return 0;
}

static int end(void **state)
{
	(void)state;
	endpoints_fini(&endpoints);
	assert_int_equal(left, 0);
	assert_int_equal(loop_timers(), 0);
	assert_int_equal(locked_kb(), locked_before);
	return 0;
}

static void it_has_texts_of_its_own(void **state)
{
	char shown[] = "url", host[] = "service", proxy[] = "proxy", login[] = "user:password";
	const struct endpoint_settings s = {.shown = shown,
					    .conn = {.host = host,
						     .port = 443,
						     .tls = true,
						     .proxy_host = proxy,
						     .proxy_port = 3128,
						     .proxy_login = login},
					    .ca_digest = no_file};
	const char *why = NULL;
	struct endpoint *endpoint = endpoint_new(&endpoints, &s, &why);
	const struct conn_settings *own = &endpoint->shared.settings;

	(void)state;
	endpoints_set(&endpoints, endpoint);
	shown[0] = host[0] = proxy[0] = login[0] = '!';
	assert_string_equal(endpoint->shown, "url");
	assert_string_equal(own->host, "service");
	assert_string_equal(own->proxy_host, "proxy");
	assert_string_equal(own->proxy_login, "user:password");
	assert_int_equal(own->port, 443);
	assert_int_equal(own->proxy_port, 3128);
	assert_true(own->tls);
	assert_ptr_equal(base_seen, base);
	assert_ptr_equal(endpoint->shared.base, base);
	assert_ptr_equal(endpoint->shared.stats, &stats);
	assert_ptr_equal(endpoint->shared.memory, &endpoint->memory);
	assert_non_null(endpoint->shared.websockets);
}

static void or_none(void **state)
{
	(void)state;
	endpoints_set(&endpoints, make(no_file));
	assert_null(endpoints.present->shared.settings.proxy_host);
	assert_null(endpoints.present->shared.settings.proxy_login);
}

static void one_that_cannot_be_used_changes_nothing(void **state)
{
	const struct endpoint_settings s = {.shown = "url",
					    .conn = {.host = "other"},
					    .trust = (struct trust *)&stats,
					    .ca_digest = a_file};
	const char *why = NULL;

	(void)state;
	assert_null(endpoint_new(&endpoints, &s, &why));
	assert_string_equal(why, "there is no such file");
	endpoints_set(&endpoints, make(no_file));
	assert_null(endpoint_new(&endpoints, &s, &why));
	assert_string_equal(endpoints.present->shared.settings.host, "service");
}

static void those_with_the_same_anchors_share_a_context(void **state)
{
	(void)state;
	endpoints_set(&endpoints, make(a_file));
	struct websocket_context *first = endpoints.present->shared.websockets;
	endpoints_set(&endpoints, make(a_file));
	assert_ptr_equal(endpoints.present->shared.websockets, first);
	loop_turn();
	assert_int_equal(left, 1); /* the second one still uses it */
	endpoints_set(&endpoints, make(no_file));
	loop_turn();
	assert_int_equal(made, 2);
	assert_int_equal(left, 1);
}

static void a_former_one_goes_a_turn_after_its_last_connection(void **state)
{
	(void)state;
	endpoints_set(&endpoints, make(no_file));
	struct endpoint *former = endpoint_take(&endpoints);
	assert_ptr_equal(former, endpoints.present);
	assert_ptr_equal(endpoint_take(&endpoints), former);
	endpoints_set(&endpoints, make(a_file));
	endpoint_leave(&endpoints, former);
	assert_int_equal(loop_turn(), 0);
	endpoint_leave(&endpoints, former);
	assert_int_equal(left, 2); /* not from within */
	assert_int_equal(loop_turn(), 1);
	assert_int_equal(left, 1);
}

static void the_present_one_stays_without_connections(void **state)
{
	(void)state;
	endpoints_set(&endpoints, make(no_file));
	endpoint_leave(&endpoints, endpoint_take(&endpoints));
	assert_int_equal(loop_turn(), 0);
	assert_int_equal(left, 1);
}

static void the_end_comes_before_the_turn(void **state)
{
	(void)state;
	endpoints_set(&endpoints, make(no_file));
	endpoints_set(&endpoints, make(a_file));
	endpoints_set(&endpoints, make(no_file));
	assert_int_equal(left, 3);
}

static void other_times_leave_the_place_as_it_is(void **state)
{
	const struct conn_settings other = {.host = "other",
					    .port = 80,
					    .connect_timeout_ms = 5,
					    .keepalive_ms = 6,
					    .max_message = 7};

	(void)state;
	endpoints_set(&endpoints, make(no_file));
	endpoint_set_times(endpoints.present, &other);
	const struct conn_settings *own = &endpoints.present->shared.settings;
	assert_int_equal(own->connect_timeout_ms, 5);
	assert_int_equal(own->keepalive_ms, 6);
	assert_int_equal(own->max_message, 7);
	assert_string_equal(own->host, "service");
	assert_int_equal(own->port, 443);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(it_has_texts_of_its_own),
		CASE(or_none),
		CASE(one_that_cannot_be_used_changes_nothing),
		CASE(those_with_the_same_anchors_share_a_context),
		CASE(a_former_one_goes_a_turn_after_its_last_connection),
		CASE(the_present_one_stays_without_connections),
		CASE(the_end_comes_before_the_turn),
		CASE(other_times_leave_the_place_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
