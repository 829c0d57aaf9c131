#include "exec.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "base/mem.h"
#include "base/output.h"
#include "visible.h"

enum { VARIABLE_MAX = 100 << 10 }; /* the kernel takes 128 KiB, name included */

enum { KEY, VALUE, EVENT, TIMESTAMP, SKIPPED, VARIABLES };

static const char *const names[] = {
	[KEY] = "HPKV_KEY=",         [VALUE] = "HPKV_VALUE=",
	[EVENT] = "HPKV_EVENT=",     [TIMESTAMP] = "HPKV_TIMESTAMP=",
	[SKIPPED] = "HPKV_SKIPPED=",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == VARIABLES, "a name for each variable");

extern char **environ;

/* ---- the environment ---- */

static bool is_ours(const char *variable)
{
	for (unsigned i = 0; i < VARIABLES; i++) {
		if (strncmp(variable, names[i], strlen(names[i])) == 0)
			return true;
	}
	return false;
}

static char *variable(const char *name, struct hpkv_bytes text)
{
	size_t n = strlen(name);
	char *v = mem_alloc(n + text.n + 1);

	memcpy(v, name, n);
	if (text.n)
		memcpy(v + n, text.p, text.n);
	v[n + text.n] = '\0';
	return v;
}

/* hpkv's own environment without variables of these names, followed by these. The caller frees the
 * list and the last VARIABLES of it. */
static char **make_environment(char *variables[VARIABLES])
{
	size_t n = 0, kept = 0;

	while (environ[n])
		n++;
	char **list = mem_alloc((n + VARIABLES + 1) * sizeof(*list));
	for (size_t i = 0; i < n; i++) {
		if (!is_ours(environ[i]))
			list[kept++] = environ[i];
	}
	for (unsigned i = 0; i < VARIABLES; i++) {
		if (variables[i])
			list[kept++] = variables[i];
	}
	list[kept] = NULL;
	return list;
}

/* Why no variable can hold the text. NULL: one can. */
static const char *why_no_variable(struct hpkv_bytes text)
{
	if (text.n && memchr(text.p, '\0', text.n))
		return "holds a NUL, which no variable can hold";
	if (text.n > VARIABLE_MAX)
		return "is longer than 100 KiB, which no variable can hold";
	return NULL;
}

/* ---- stdin ---- */

/* Makes a file in memory that holds the text and is read from its beginning; -errno on failure.
 * RLIMIT_FSIZE applies to it, and its signal must not end hpkv. */
static int make_file(struct hpkv_bytes text, const char *end)
{
	int fd = memfd_create("hpkv-change", MFD_CLOEXEC), error = fd < 0 ? -errno : 0;
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before;

	sigaction(SIGXFSZ, &ignore, &before);
	if (!error && text.n)
		error = output_write(fd, text.p, text.n);
	if (!error)
		error = output_write(fd, end, strlen(end));
	sigaction(SIGXFSZ, &before, NULL);
	if (!error && lseek(fd, 0, SEEK_SET) < 0)
		error = -errno;
	if (error && fd >= 0)
		close(fd);
	return error ? error : fd;
}

/* ---- both ---- */

static int not_run(const struct hpkv_event *e, const char *what, const char *why)
{
	cli_say("watch: the command for %s was not run: %s%s", visible_name(e->key), what, why);
	return CLI_USAGE;
}

static void say_end(const struct hpkv_event *e, int status)
{
	if (WIFSIGNALED(status))
		cli_say("watch: the command for %s was ended by signal %d", visible_name(e->key),
			WTERMSIG(status));
	else if (WEXITSTATUS(status))
		cli_say("watch: the command for %s ended with status %d", visible_name(e->key),
			WEXITSTATUS(status));
}

static int run(const char *command, const struct hpkv_event *e, char *variables[VARIABLES],
	       int input)
{
	char **environment = make_environment(variables);
	int status, error = child_run(command, environment, input, &status);

	free(environment);
	if (error)
		return not_run(e, "/bin/sh: ", strerror(-error));
	say_end(e, status);
	return CLI_DONE;
}

int exec_command(const char *command, bool object, const struct hpkv_event *e)
{
	struct hpkv_bytes value = object ? (struct hpkv_bytes){0} : e->value;
	const char *key_fault = why_no_variable(e->key), *value_fault = why_no_variable(value);
	char timestamp[32], skipped[32];

	if (key_fault)
		return not_run(e, "the key ", key_fault);
	if (value_fault)
		return not_run(e, "the value ", value_fault);
	int input = object ? make_file(e->line, "\n") : make_file(value, "");
	if (input < 0)
		return not_run(e, "no file for its stdin: ", strerror(-input));
	snprintf(timestamp, sizeof(timestamp), "%lld", (long long)e->timestamp);
	snprintf(skipped, sizeof(skipped), "%llu", (unsigned long long)e->skipped);
	char *variables[VARIABLES] = {
		[KEY] = variable(names[KEY], e->key),
		[VALUE] = value.p ? variable(names[VALUE], value) : NULL,
		[EVENT] = variable(names[EVENT], hpkv_str(e->value.p ? "set" : "delete")),
		[TIMESTAMP] = variable(names[TIMESTAMP], hpkv_str(timestamp)),
		[SKIPPED] = variable(names[SKIPPED], hpkv_str(skipped)),
	};
	int status = run(command, e, variables, input);
	for (unsigned i = 0; i < VARIABLES; i++)
		free(variables[i]);
	close(input);
	return status;
}
