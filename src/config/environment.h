/* environment.h - the variables of the environment at the start of the program.
 *
 * It is asked once, so a later reload finds the same. The key and the URL are wiped from it. */
#pragma once

/* NULL: the variable is not set, or empty. */
struct config_environment {
	char *config_path;           /* HPKVD_CONFIG */
	char *base_url;              /* HPKV_BASE_URL; secret */
	char *api_key;               /* HPKV_API_KEY; secret */
	char *https_proxy;           /* HTTPS_PROXY or https_proxy; may hold a password */
	char *no_proxy;              /* NO_PROXY or no_proxy */
	char *credentials_directory; /* CREDENTIALS_DIRECTORY, from systemd's LoadCredential= */
};

/* Copies the variables, and wipes key and URL from environ and from the block that the kernel shows
 * as /proc/PID/environ. The result is the caller's; config_environment_free() wipes the secrets. */
struct config_environment *config_environment_take(void);
void config_environment_free(struct config_environment *environment); /* NULL: nothing */
