/* tls.h - TLS under the WebSocket: its versions, whom it believes, and what went wrong with it.
 *
 * There is no way to switch checks off. That the certificate is for the host is checked here as
 * well as in the library, which takes a host that it cannot parse for none at all. OpenSSL says why
 * a handshake fails while that happens, and the library forgets it: so it is kept here.
 *
 * Owns the context. The connections' own state is the library's (link.h), later stream.h's. */
#pragma once

#include <stdbool.h>

#include <openssl/ssl.h>

struct tls {
	SSL_CTX *ctx;
	/* What went wrong since tls_forget_fault(), as OpenSSL and as the kernel name it; 0:
	 * nothing. */
	unsigned long fault;
	int fault_errno;
};

/* ca_file: an extra trust anchor (PEM) or NULL. False with *why set (a sentence, static) when the
 * file can't be used. It stays where it is. */
bool tls_init(struct tls *t, const char *ca_file, const char **why);
void tls_fini(struct tls *t);

void tls_forget_fault(struct tls *t);
const char *tls_fault_phrase(const struct tls *t); /* static */

/* Why the certificate is refused (static); NULL: it is not. */
const char *tls_refusal(const SSL *ssl);
/* The certificate that is being verified, which is good so far: is it for this host, if it is the
 * peer's own? Else the store says why not. */
bool tls_is_for(X509_STORE_CTX *store, const char *host);

/* Once the library has made all that it makes: it is to be called back by no connection that it
 * does not know any more (version 4.3 asks for the sessions that servers offer). */
void tls_settle(struct tls *t);
/* A connection whose handshake is over leaves the library: it is not called back about it, one
 * read() may bring many records from now on, and a long write is reported record by record. */
void tls_take(SSL *ssl);
