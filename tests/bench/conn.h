/* conn.h - one byte stream that does not block, plain or TLS, between two queues.
 *
 * Reading takes all there is: of TLS, so that nothing is left hidden in the library where epoll
 * can't see it. Writing gives all that fits: one TLS record holds up to 16 KB of what is queued at
 * that moment, so that who queues first and flushes once sends few records and makes few system
 * calls. */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct conn {
	int fd;
	SSL *ssl; /* NULL: plain */
	struct buf in, out;
	uint32_t watched; /* what epoll watches it for */
};

SSL_CTX *conn_server_tls(const char *certificate, const char *key);
SSL_CTX *conn_client_tls(const char *ca_file);

/* Take over a connected socket. tls NULL: plain. The client's one makes the whole TLS handshake,
 * blocking; the server's is carried on by conn_fill(). Both leave the socket non-blocking. */
void conn_accept(struct conn *c, int fd, SSL_CTX *tls);
void conn_client(struct conn *c, int fd, SSL_CTX *tls);
void conn_close(struct conn *c);

bool conn_fill(struct conn *c); /* socket to in; false: the stream has ended */
bool conn_flush(
	struct conn *c); /* out to socket, as far as it takes it; false: the stream has ended */

/* Watches for what is due: for room to write while something is queued, and not for more to read
 * while too much is. */
void conn_watch(struct conn *c, int epoll, void *owner);
