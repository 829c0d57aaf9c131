#include "config/environment.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/secret.h"

static char *copy_variable(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? mem_strdup(value) : NULL;
}

static char *copy_secret_variable(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? secret_dup(value) : NULL;
}

/* unsetenv() only takes the pointer away: the bytes would stay in the block that the kernel shows
 * as /proc/PID/environ. A name may be there more than once. */
static char *take_variable(const char *name)
{
	char *copy = copy_secret_variable(name);
	size_t n = strlen(name);

	for (char **entry = environ; *entry; entry++) {
		if (strncmp(*entry, name, n) == 0 && (*entry)[n] == '=')
			mem_wipe(*entry + n + 1, strlen(*entry + n + 1));
	}
	unsetenv(name);
	return copy;
}

/* The key that a program in whose place we are has left in a pipe (restart.h); NULL: none. */
static char *take_key_from_pipe(void)
{
	const char *number = getenv("HPKVD_KEY_FD");
	int fd = number ? atoi(number) : -1;
	struct stat st;

	unsetenv("HPKVD_KEY_FD");
	if (fd <= STDERR_FILENO || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return NULL;
	char *key = secret_alloc(PIPE_BUF + 1);
	ssize_t n = read(fd, key, PIPE_BUF);
	close(fd);
	if (n <= 0)
		secret_free(&key);
	return key;
}

struct config_environment *config_environment_take(void)
{
	char *left = take_key_from_pipe();
	struct config_environment *e = mem_zalloc(sizeof(*e));

	e->config_path = copy_variable("HPKVD_CONFIG");
	e->credentials_directory = copy_variable("CREDENTIALS_DIRECTORY");
	e->base_url = take_variable("HPKV_BASE_URL");
	e->api_key = take_variable("HPKV_API_KEY");
	if (!e->api_key)
		e->api_key = left;
	else
		secret_free(&left);
	e->https_proxy = copy_secret_variable("HTTPS_PROXY");
	if (!e->https_proxy)
		e->https_proxy = copy_secret_variable("https_proxy");
	e->no_proxy = copy_variable("NO_PROXY");
	if (!e->no_proxy)
		e->no_proxy = copy_variable("no_proxy");
	return e;
}

void config_environment_free(struct config_environment *environment)
{
	if (!environment)
		return;
	free(environment->config_path);
	free(environment->credentials_directory);
	free(environment->no_proxy);
	secret_free(&environment->https_proxy);
	secret_free(&environment->base_url);
	secret_free(&environment->api_key);
	free(environment);
}
