/* hpkv-sandbox - an in-memory HPKV, for trying out and for tests (doc/sandbox.md).
 *
 * The rooms of this directory: options reads the command line; server listens; conn is a
 * connection, and hands what http reads of it to ws (WebSocket) or rest (HTTP), which both read a
 * command and give it to service, which counts it (rate) and runs it (ops) on the store; nexus
 * searches it; text and merge write and join JSON; grant and pattern are what tokens allow. */
#include <stdio.h>
#include <stdlib.h>

#include "options.h"
#include "base/orphans.h"
#include "base/output.h"
#include "server.h"
#include "service.h"

static int run(struct service *sv)
{
	struct server *server = server_new(sv);

	if (!server)
		return EXIT_FAILURE;
	orphans_discard();
	printf("listening on %s://localhost:%d\n", sv->options->tls_cert ? "https" : "http",
	       server_port(server));
	int failed = output_end("hpkv-sandbox") || server_run(server) < 0;
	server_free(server);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct options options;
	struct service service;

	output_keep_all(&stdout);
	output_keep_all(&stderr);
	int status = options_read(&options, argc, argv);

	if (status >= 0)
		return status;
	service_init(&service, &options);
	status = run(&service);
	service_fini(&service);
	return status;
}
