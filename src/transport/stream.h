/* stream.h - the bytes of one connection, through TLS or plainly, without ever blocking.
 *
 * Owns the socket and its TLS. Nothing is buffered here, but OpenSSL reads ahead: after a read that
 * brought something there may be more that epoll does not see. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

struct stream {
	int fd;            /* -1: there is none */
	SSL *ssl;          /* NULL: it is plain */
	bool wants_write;  /* the handshake or read() that said -EAGAIN goes on when it can be
			      written */
	const char *fault; /* static: what OpenSSL says of a TLS connection that broke; or NULL */
};

/* Takes the connected fd, and ssl, whose handshake is to come. False when there is no memory; to be
 * closed all the same. */
bool stream_begin(struct stream *s, int fd, SSL *ssl);
/* orderly: the peer is told, and gets what the kernel still holds. Else that is dropped: it must
 * not go out later, when the network is back, and overtake what was asked for since. */
void stream_close(struct stream *s, bool orderly);

/* Shakes hands; called until it has: 1. 0: the peer has ended it; -EAGAIN: later; -EPROTO: it
 * failed; or another -errno. */
int stream_shake(struct stream *s);

/* How many bytes; 0: the peer has ended it; -EAGAIN: later; -EPROTO: TLS broke; or another -errno.
 */
ssize_t stream_read(struct stream *s, char *p, size_t n);
/* As above. After -EAGAIN the same bytes have to be given again, and as many of them. */
ssize_t stream_write(struct stream *s, const char *p, size_t n);

/* How many bytes have come through TLS since it began, be they whole records or not. */
uint64_t stream_received(const struct stream *s);
