/* main - the command line, the environment and the first reading of the configuration; then
 * daemon_run().
 *
 * Exit status: 0 after SIGTERM or SIGINT (and after -t, --help, --version), 1 for a runtime
 * failure, 2 for wrong usage, 78 (EX_CONFIG of sysexits.h) for a wrong configuration, which a
 * supervisor need not try again. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include <ares.h>
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <event2/event.h>
#include <openssl/crypto.h>

#include "config/config.h"
#include "config/environment.h"
#include "config/load.h"
#include "daemon/daemon.h"
#include "base/log.h"
#include "base/output.h"

#ifdef __SANITIZE_ADDRESS__ /* gcc */
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) /* clang */
#define SANITIZED 1
#endif
#endif

enum { EXIT_USAGE = 2 };

/* Options without a letter. */
enum { OPTION_LOG_LEVEL = 256, OPTION_VERSION, OPTION_HELP };

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"test", no_argument, NULL, 't'},
	{"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
	{"version", no_argument, NULL, OPTION_VERSION},
	{"help", no_argument, NULL, OPTION_HELP},
	{NULL, 0, NULL, 0},
};

static const char usage[] =
	"usage: hpkvd [-c FILE] [-t] [--log-level LEVEL] [--version] [--help]\n";

static const char help[] =
	"\n"
	"Shares one connection to the HPKV service among local clients of a Unix socket.\n"
	"It stays in the foreground and logs to stderr, or to the journal under systemd.\n"
	"\n"
	"  -c, --config FILE    configuration; else $HPKVD_CONFIG, else\n"
	"                       %s\n"
	"  -t, --test           check the configuration, name all faults, and exit\n"
	"      --log-level L    error, warning, notice, info or debug; overrides the file\n"
	"      --version        print the versions of hpkvd and of its libraries\n"
	"      --help           print this\n"
	"\n"
	"environment:  HPKVD_CONFIG    configuration file, if -c is not given\n"
	"              HPKV_BASE_URL   base URL, if the configuration names none\n"
	"              HPKV_API_KEY    API key, if there is no key file\n"
	"signals:      SIGTERM, SIGINT  answer requests in flight, then exit\n"
	"              SIGHUP           read the configuration and the key again\n"
	"              SIGUSR2          answer what is in flight, then start the program\n"
	"                               anew, which takes over the socket\n"
	"exit status:  0 ended as asked, 1 failed, 2 wrong usage, 78 configuration wrong\n";

struct command_line {
	const char *config_path;
	bool test;
	bool level_forced;
	enum log_level level;
};

/* Several libraries copy the key into buffers of their own. So no core is dumped, and no debugger
 * of the same user may attach. Sanitizers need both. */
static void keep_memory_private(void)
{
#ifndef SANITIZED
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		log_warning("cannot switch core files off: %s", strerror(errno));
#endif
}

/* glibc raises both as large blocks are freed, and then keeps many megabytes of free memory. With
 * its first values, 128 KiB, a busy daemon would give back memory and take it again all the time.
 */
static void bound_free_memory(void)
{
#ifdef __GLIBC__
	mallopt(M_TRIM_THRESHOLD, 512 * 1024);
	mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
#endif
}

/* If one of these is closed, the next descriptor takes its number; if that is a client's socket,
 * the log would be written to the client. Without /dev/null an unconnected socket will do. */
static void keep_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_NOCTTY);
		if (fd < 0)
			fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* Without these signals errno tells of their causes: a peer that is gone, a log at its size limit,
 * a terminal with tostop whose background job this is. */
static void ignore_signals(void)
{
	static const int ignored[] = {SIGPIPE, SIGXFSZ, SIGTTOU};

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
}

static int print_version(void)
{
	printf("hpkvd %s\n", PACKAGE_VERSION);
	printf("libevent %s\n", event_get_version());
	printf("libcurl %s\n", curl_version_info(CURLVERSION_NOW)->version);
	printf("c-ares %s\n", ares_version(NULL));
	printf("cJSON %s\n", cJSON_Version());
	printf("%s\n", OpenSSL_version(OPENSSL_VERSION));
	return output_end("hpkvd");
}

static int print_help(void)
{
	fputs(usage, stdout);
	printf(help, config_default_path());
	return output_end("hpkvd");
}

static int wrong_usage(void)
{
	fputs(usage, stderr);
	return EXIT_USAGE;
}

/* -1: go on; else the exit status. */
static int parse_command_line(int argc, char **argv, struct command_line *line)
{
	int c;

	while ((c = getopt_long(argc, argv, "c:t", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			line->config_path = optarg;
			if (*optarg)
				break;
			fprintf(stderr, "hpkvd: -c wants the name of a file\n");
			return wrong_usage();
		case 't':
			line->test = true;
			break;
		case OPTION_LOG_LEVEL:
			line->level_forced = log_level_parse(optarg, &line->level);
			if (line->level_forced)
				break;
			fprintf(stderr,
				"hpkvd: there is no log level '%s': error, warning, notice, info, "
				"debug\n",
				optarg);
			return wrong_usage();
		case OPTION_VERSION:
			return print_version();
		case OPTION_HELP:
			return print_help();
		default:
			return wrong_usage();
		}
	}
	if (optind == argc)
		return -1;
	fprintf(stderr, "hpkvd: unexpected argument '%s'\n", argv[optind]);
	return wrong_usage();
}

/* With -t they go to the user, as plain lines; at a start to the log. */
static void print_faults(const struct config_report *report, bool test)
{
	for (size_t i = 0; i < report->n; i++) {
		if (test)
			fprintf(stderr, "%s\n", report->text[i]);
		else
			log_error("%s", report->text[i]);
	}
}

static int run(const struct command_line *line, char **argv, struct config_environment *environment)
{
	const char *path = line->config_path ? line->config_path : environment->config_path;
	struct config_source source = {
		.path = path, .required = path != NULL, .environment = environment};
	struct config_report report = {0};
	struct config *config = NULL;

	if (!line->test)
		daemon_expect_signals();
	int error = config_load(&source, &config, &report);

	print_faults(&report, line->test);
	config_report_free(&report);
	if (error)
		return EX_CONFIG;
	if (line->test) {
		print_faults(&config->warnings, true);
		printf("%s: ok\n", path ? path : config_default_path());
		config_free(config);
		return output_end("hpkvd");
	}
	char *path_of_program = restart_path(argv[0]);
	struct daemon_options daemon = {
		.config = config,
		.source = source,
		.level_forced = line->level_forced,
		.level = line->level,
		.program = {.path = path_of_program, .argv = argv, .environment = environment},
	};
	log_set_level(line->level_forced ? line->level : config->log.level);
	int status = daemon_run(&daemon);
	free(path_of_program);
	return status;
}

int main(int argc, char **argv)
{
	struct command_line line = {0};
	FILE *log = stderr;

	keep_standard_descriptors();
	ignore_signals();
	output_keep_all(&stdout);
	output_keep_all(&stderr);
	keep_memory_private();
	bound_free_memory();
	struct config_environment *environment = config_environment_take();
	int status = parse_command_line(argc, argv, &line);
	if (status < 0 && !line.test)
		stderr = log; /* the log never waits */
	if (status < 0)
		status = run(&line, argv, environment);
	config_environment_free(environment);
	return status;
}
