/* tls.h - TLS under the WebSocket: its versions, its trust anchors, and the name that the peer's
 * certificate must have.
 *
 * OpenSSL does all of it. There is no way to switch checks off. stream.h does the handshake and
 * reports its failures. */
#pragma once

#include <openssl/ssl.h>

#include "transport/trust.h"

/* NULL with *why set (a sentence, static) when the authorities can't be read; else to be freed with
 * SSL_CTX_free(). */
SSL_CTX *tls_context(struct trust *trust, const char **why);

/* A connection to host, a name or an address as inet_pton() takes it. A name is sent to the peer
 * (SNI). NULL: no memory; else to be freed with SSL_free(). */
SSL *tls_new(SSL_CTX *ctx, const char *host);

/* Why the certificate is refused (static); NULL: it is not refused, or has not come. */
const char *tls_refusal(const SSL *ssl);
