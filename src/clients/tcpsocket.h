/* tcpsocket.h - a listening TCP socket on an address of this machine.
 *
 * The address is numeric; that it is a loopback address is the business of whoever reads the
 * configuration. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A descriptor, non-blocking and close-on-exec, or -errno, which it has logged with the address and
 * what to do. */
int tcpsocket_open(const char *address, uint16_t port, const char *setting);

enum { TCPSOCKET_ADDRESS_MAX = 46 };
/* Where it listens. False: that can't be found out. */
bool tcpsocket_address(int fd, char address[TCPSOCKET_ADDRESS_MAX], uint16_t *port);

/* Does it listen on TCP, on an address that only this machine reaches? */
bool tcpsocket_is_loopback(int fd);

/* Of a connection: small responses are not held back. */
void tcpsocket_prepare(int fd);
