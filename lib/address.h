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

/* The name has a prefix of its own, for the command uses it as well. 0; -ENAMETOOLONG; -EINVAL: it
 * is empty. */
int hpkv_address_read(const char *text, struct sockaddr_un *address, socklen_t *n);

/* Why it can't be used, or what connect() said about it, as a phrase. */
const char *hpkv_address_fault(int error);
