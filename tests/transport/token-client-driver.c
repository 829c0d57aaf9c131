/* token-driver - token requests to a server (driver.h).
 *
 *   token-driver [--plain] [--ca FILE] [--timeout MS] [--proxy HOST PORT]
 *                [--proxy-login USER:PASSWORD] HOST PORT
 *
 * Commands: mint NAME KEY PATTERN-JSON|- SUBSCRIBE-JSON; cancel NAME; forget (frees the token
 * client); when done COMMAND (done from within the call that ends the next request). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "base/mem.h"
#include "transport/token_client.h"
#include "transport/trust.h"

enum { REQUESTS = 16 };

static struct token_client *client;
static struct request {
	char *name;
	struct token_client_request *open;
} requests[REQUESTS];

static void on_done(void *owner, const struct token_client_answer *a)
{
	struct request *r = owner;

	printf("done %s token=%s status=%d retry=%d why=%s\n", r->name, a->token ? a->token : "-",
	       a->http_status, a->retry_after_s, a->why ? a->why : "-");
	driver_react("done");
	r->open = NULL;
}

static void do_mint(char *rest)
{
	char *name = strsep(&rest, " "), *key = strsep(&rest, " "), *pattern = strsep(&rest, " ");
	struct token_client_params wish = {
		.api_key = key,
		.subscribe_keys = {rest, strlen(rest)},
		.subscribe_patterns = {rest, strlen(rest)},
		.access_pattern = {pattern, strcmp(pattern, "-") == 0 ? 0 : strlen(pattern)},
	};

	for (int i = 0; i < REQUESTS; i++) {
		if (!requests[i].name) {
			requests[i].name = mem_strdup(name);
			requests[i].open = token_client_mint(client, &wish, on_done, &requests[i]);
			return;
		}
	}
}

static void do_cancel(char *rest)
{
	for (int i = 0; i < REQUESTS; i++) {
		if (requests[i].open && strcmp(requests[i].name, rest) == 0) {
			token_client_cancel(requests[i].open);
			requests[i].open = NULL;
			printf("cancelled %s\n", rest);
		}
	}
}

static void do_forget(char *rest)
{
	(void)rest;
	token_client_free(client);
	client = NULL;
	printf("forgotten\n");
}

static void do_when(char *rest)
{
	char *event = strsep(&rest, " ");

	driver_when(event, rest);
}

static const struct driver_command commands[] = {
	{"mint", do_mint}, {"cancel", do_cancel}, {"forget", do_forget}, {"when", do_when}, {0},
};

static char **options(char **arg, struct token_client_settings *config)
{
	for (; *arg && strncmp(*arg, "--", 2) == 0; arg++) {
		if (strcmp(*arg, "--plain") == 0)
			config->tls = false;
		else if (strcmp(*arg, "--ca") == 0)
			config->trust = trust_new(*++arg);
		else if (strcmp(*arg, "--timeout") == 0)
			config->timeout_ms = atoi(*++arg);
		else if (strcmp(*arg, "--proxy") == 0) {
			config->proxy_host = *++arg;
			config->proxy_port = (uint16_t)atoi(*++arg);
		} else if (strcmp(*arg, "--proxy-login") == 0) {
			config->proxy_login = *++arg;
		}
	}
	return arg;
}

int main(int argc, char **argv)
{
	struct token_client_settings config = {
		.tls = true, .path = "/token/websocket", .timeout_ms = 40000};
	struct event_base *base = driver_begin();
	char **arg = options(argv + 1, &config);

	if (argv + argc - arg != 2)
		return 2;
	config.host = arg[0];
	config.port = (uint16_t)atoi(arg[1]);
	if (!config.trust)
		config.trust = trust_new(NULL);
	client = token_client_new(base, &config);
	trust_unref(config.trust);
	driver_run(commands);
	if (client)
		token_client_free(client);
	driver_end();
	for (int i = 0; i < REQUESTS; i++)
		free(requests[i].name);
	return 0;
}
