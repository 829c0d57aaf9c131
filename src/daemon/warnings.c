#include "daemon/warnings.h"

#include <string.h>

#include "base/log.h"
#include "base/secret.h"
#include "daemon/state_file.h"

void warnings_of_settings(const struct config *config, const struct config *before)
{
	static const enum config_exposed writable[] = {CONFIG_WRITABLE, CONFIG_CA_WRITABLE},
					 foreign[] = {CONFIG_FOREIGN, CONFIG_CA_FOREIGN};

	for (int i = 0; i < 2; i++) {
		if (config->exposed[writable[i]])
			log_warning("%s can be written by everybody, who could have the key sent "
				    "anywhere: chmod o-w it",
				    config->exposed[writable[i]]);
		if (config->exposed[foreign[i]])
			log_warning("%s belongs to another user, who could have the key sent "
				    "anywhere: chown it to root, or to the user that hpkvd runs as",
				    config->exposed[foreign[i]]);
	}
	if (config->exposed[CONFIG_ORIGIN_OPEN])
		log_warning("%s can be used by others than its owner and group: chmod o= it, and "
			    "if it holds a key, replace the key",
			    config->exposed[CONFIG_ORIGIN_OPEN]);
	if (config->upstream.no_proxy_useless)
		log_warning(
			"the entry \"%s\" of NO_PROXY has no effect: it is neither a host name nor "
			"an address, with a port or without, nor a network as in 10.0.0.0/8",
			config->upstream.no_proxy_useless);
	for (size_t i = 0; i < config->warnings.n; i++)
		log_warning("%s", config->warnings.text[i]);
	if (before && before->access && !config->access)
		log_warning("there are no access rules any more: every user who may open the "
			    "socket may do everything but mint tokens");
}

void warnings_of_socket(const char *socket, const struct config *config)
{
	if (socket[0] == '@' && !config->access)
		log_warning("%s is an abstract socket, to which every user may connect: without "
			    "access rules they may do everything but mint tokens",
			    socket);
}

void warnings_of_swap(void)
{
	int err = secret_check();

	if (err < 0)
		log_notice("memory can't be locked (%s), so the key may be swapped out: raise "
			   "LimitMEMLOCK= or ulimit -l",
			   strerror(-err));
}

void warnings_of_state(void)
{
	int err = state_file_check();

	if (err < 0)
		log_warning("nothing outlives this process, neither tokens nor the learned pace: "
			    "$STATE_DIRECTORY can't be used: %s",
			    strerror(-err));
}
