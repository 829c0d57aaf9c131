/* token_secret.h - the secret that local tokens are signed with (local_tokens.h): the file
 * token-secret in $STATE_DIRECTORY, which is made if it is not there, so that tokens outlive the
 * daemon. Where there is no such directory, or the file can't be used, it is random and lives as
 * long as the process. */
#pragma once

#include "access/local_tokens.h"

/* Says in the log what it could not do. secret is to be wiped. */
void token_secret_get(unsigned char secret[LOCAL_TOKENS_SECRET]);
