/* address.h - where a daemon's socket is, as people write it.
 *
 *   /run/hpkvd/hpkvd.sock    a path, absolute or not
 *   @name                    a name in the kernel's abstract namespace (man 7 unix), which systemd
 *                            and others write in this way; a path that begins with @ is ./@…
 *   unix:/run/…, unix:@name  the same two, as socat and others write them
 *
 * All of an abstract name's bytes count, and none behind them. */
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

/* Reads such a text. 0; -ENAMETOOLONG; -EINVAL: the name is empty. (The function has a prefix of
 * its own because the command uses it as well.) */
int hpkv_address_read(const char *text, struct sockaddr_un *address, socklen_t *n);

/* The reason for an error of hpkv_address_read() or connect(), as a phrase. */
const char *hpkv_address_fault(int error);
