/* stream.h - the bytes of one connection, through TLS or plain, without ever blocking.
 *
 * Owns the socket and its TLS. Nothing is buffered here, but OpenSSL reads ahead: after a read that
 * returned bytes there may be more that epoll does not see. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

struct stream {
	int fd;           /* -1: none */
	SSL *ssl;         /* NULL: plain */
	bool wants_write; /* the handshake or read() that returned -EAGAIN can go on when the socket
			     is writable */
	const char *fault; /* static: OpenSSL's reason for a broken TLS connection; or NULL */
};

/* Takes the connected fd, and ssl before its handshake. False: no memory; close it all the same. */
bool stream_begin(struct stream *s, int fd, SSL *ssl);
/* orderly: the peer is told, and gets the bytes that the kernel still holds. Else those are
 * dropped: they must not go out later, when the network is back, and overtake newer requests. */
void stream_close(struct stream *s, bool orderly);

/* Does the handshake; to be called until it returns 1. 0: the peer has closed; -EAGAIN: later;
 * -EPROTO: it failed; or another -errno. */
int stream_shake(struct stream *s);

/* How many bytes; 0: the peer has closed; -EAGAIN: later; -EPROTO: TLS broke; or another -errno. */
ssize_t stream_read(struct stream *s, char *p, size_t n);
/* After a read that returned bytes: may another one return more at once? If not, epoll will tell.
 */
bool stream_holds_more(const struct stream *s);
/* As stream_read(). After -EAGAIN the same bytes must be passed again, and as many of them. */
ssize_t stream_write(struct stream *s, const char *p, size_t n);

/* How many bytes have come through TLS so far, in whole records or not. */
uint64_t stream_received(const struct stream *s);
