#include "options.h"

#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/output.h"

static const char HELP[] =
	"usage: hpkv-sandbox [OPTION]...\n"
	"An in-memory HPKV for trying out and for tests, on the loopback interface only.\n"
	"It prints one line \"listening on URL\" when it is ready. Records are lost when it ends.\n"
	"\n"
	"  --port N              listen on port N; 0 picks a free one (default 7400)\n"
	"  --tls-cert FILE       serve https with this certificate (PEM; its chain may follow it)\n"
	"  --tls-key FILE        the certificate's private key (PEM); without both, plain http\n"
	"  --api-key KEY         accept this API key (default \"sandbox\"); up to 8 keys share the "
	"records\n"
	"  --rate N              answer 429 beyond N requests a second per API key (default 0: no "
	"limit)\n"
	"  --token-ttl SECONDS   lifetime of a token (default 7200); fractions are allowed\n"
	"  --delay-ms N          delay each answer and notification by N milliseconds "
	"(default 0)\n"
	"  --max-message N       close a connection (1009) on a message of more than N bytes "
	"(default 65536)\n"
	"  --notify-first        send notifications of a change before the answer to its writer\n"
	"  --notify-patch        a patch's notification carries the patch, not the new value\n"
	"  --help, --version     print this, or the version\n";

enum { EXIT_USAGE = 2 };

enum which {
	OPT_PORT = 1,
	OPT_CERT,
	OPT_KEY,
	OPT_API_KEY,
	OPT_RATE,
	OPT_TTL,
	OPT_DELAY,
	OPT_MAX_MESSAGE,
	OPT_NOTIFY_FIRST,
	OPT_NOTIFY_PATCH,
	OPT_HELP,
	OPT_VERSION
};

static const struct option LONG[] = {
	{"port", required_argument, NULL, OPT_PORT},
	{"tls-cert", required_argument, NULL, OPT_CERT},
	{"tls-key", required_argument, NULL, OPT_KEY},
	{"api-key", required_argument, NULL, OPT_API_KEY},
	{"rate", required_argument, NULL, OPT_RATE},
	{"token-ttl", required_argument, NULL, OPT_TTL},
	{"delay-ms", required_argument, NULL, OPT_DELAY},
	{"max-message", required_argument, NULL, OPT_MAX_MESSAGE},
	{"notify-first", no_argument, NULL, OPT_NOTIFY_FIRST},
	{"notify-patch", no_argument, NULL, OPT_NOTIFY_PATCH},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{NULL, 0, NULL, 0},
};

static bool is_number(const char *text, double min, double max, double *out)
{
	char *end;
	double number = strtod(text, &end);

	if (end == text || *end || !isfinite(number) || number < min || number > max)
		return false;
	*out = number;
	return true;
}

static bool is_whole(const char *text, double max, long *out)
{
	double number;

	if (!is_number(text, 0, max, &number) || number != floor(number))
		return false;
	*out = (long)number;
	return true;
}

static bool read_api_key(struct options *o, const char *text)
{
	if (!*text || o->n_api_keys == OPTIONS_KEYS)
		return false;
	o->api_keys[o->n_api_keys++] = text;
	return true;
}

/* Reads one option. NULL: it is valid. Else a phrase: what the option wants. */
static const char *read_option(struct options *o, int option, const char *text)
{
	long port;

	switch (option) {
	case OPT_PORT:
		if (!is_whole(text, 65535, &port))
			return "a number from 0 to 65535";
		o->port = (int)port;
		return NULL;
	case OPT_CERT:
		o->tls_cert = text;
		return NULL;
	case OPT_KEY:
		o->tls_key = text;
		return NULL;
	case OPT_API_KEY:
		return read_api_key(o, text) ? NULL : "a key that is not empty, at most 8 times";
	case OPT_RATE:
		return is_number(text, 0, 1e9, &o->rate) ? NULL : "a number of requests a second";
	case OPT_TTL:
		return is_number(text, 0.001, 1e9, &o->token_ttl_s) ? NULL
								    : "a number of seconds above 0";
	case OPT_DELAY:
		return is_whole(text, 3600000, &o->delay_ms) ? NULL
							     : "a whole number of milliseconds";
	case OPT_NOTIFY_FIRST:
		o->notify_first = true;
		return NULL;
	case OPT_NOTIFY_PATCH:
		o->notify_patch = true;
		return NULL;
	case OPT_MAX_MESSAGE:
		return is_whole(text, 1 << 24, &o->max_message) && o->max_message >= 128
			       ? NULL
			       : "a number of bytes from 128 to 16777216";
	}
	return "to be known";
}

static int wrong_usage(const char *format, const char *a, const char *b)
{
	fputs("hpkv-sandbox: ", stderr);
	fprintf(stderr, format, a, b);
	fputs("\nTry --help.\n", stderr);
	return EXIT_USAGE;
}

static int check_whole(struct options *o)
{
	if (!o->tls_cert != !o->tls_key)
		return wrong_usage("--tls-%s is missing its --tls-%s", o->tls_cert ? "cert" : "key",
				   o->tls_cert ? "key" : "cert");
	if (!o->n_api_keys)
		o->api_keys[o->n_api_keys++] = "sandbox";
	return -1;
}

int options_read(struct options *o, int argc, char **argv)
{
	int option, index = 0;

	*o = (struct options){.port = 7400, .token_ttl_s = 7200, .max_message = 64 * 1024};
	while ((option = getopt_long(argc, argv, "", LONG, &index)) != -1) {
		if (option == OPT_HELP || option == OPT_VERSION) {
			fputs(option == OPT_HELP ? HELP : "hpkv-sandbox " PACKAGE_VERSION "\n",
			      stdout);
			return output_end("hpkv-sandbox");
		}
		if (option == '?') { /* getopt has printed the error */
			fputs("Try --help.\n", stderr);
			return EXIT_USAGE;
		}
		const char *wants = read_option(o, option, optarg);
		if (wants)
			return wrong_usage("--%s wants %s", LONG[index].name, wants);
	}
	if (optind < argc)
		return wrong_usage("unexpected argument \"%s\"%s", argv[optind], "");
	return check_whole(o);
}
