/* hpkv-sandbox - an in-memory HPKV, for trying out and for tests (doc/sandbox.md).
 *
 * The rooms of this directory: options parses the command line; server listens and passes events to
 * ws (WebSocket) and rest (HTTP). Both parse a command and pass it to service, which counts it
 * (rate) and runs it (ops) on the store. text and merge check and join JSON; grant and pattern
 * implement tokens. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "options.h"
#include "base/orphans.h"
#include "base/output.h"
#include "server.h"
#include "service.h"

static struct server *signalled; /* for the signal handler */

static void on_signal(int number)
{
	(void)number;
	server_stop(signalled);
}

static void stop_on_signals(struct server *server)
{
	struct sigaction stop = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};

	signalled = server;
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	orphans_discard();
}

/* A second signal while the server is being freed changes nothing. */
static void ignore_signals(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	sigaction(SIGTERM, &ignore, NULL);
	sigaction(SIGINT, &ignore, NULL);
}

static int run(struct service *sv)
{
	struct server *server = server_new(sv);

	if (!server)
		return EXIT_FAILURE;
	stop_on_signals(server);
	printf("listening on %s://localhost:%d\n", sv->options->tls_cert ? "https" : "http",
	       server_port(server));
	int failed = output_end("hpkv-sandbox") || server_run(server) < 0;
	ignore_signals();
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
