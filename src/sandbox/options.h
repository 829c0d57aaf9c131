/* options.h - parses the command line of hpkv-sandbox. */
#pragma once

#include <stdbool.h>

enum { OPTIONS_KEYS = 8 };

struct options {
	int port;                       /* 0: one that is free */
	const char *tls_cert, *tls_key; /* both or none */
	const char *api_keys[OPTIONS_KEYS];
	unsigned n_api_keys;
	double rate; /* requests/s for each API key; 0: no limit */
	double token_ttl_s;
	long delay_ms;
	bool notify_first; /* before the answer */
	bool notify_patch; /* carries the patch */
	long max_message;  /* bytes; a longer one closes its connection with 1009 */
};

/* -1: *o is set. Else the exit status to end with; help or an error was printed. */
int options_read(struct options *o, int argc, char **argv);
