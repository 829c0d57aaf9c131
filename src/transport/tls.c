#include "transport/tls.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <openssl/x509v3.h>

#include "transport/target.h"

enum { READ_AHEAD = 65536 }; /* bytes that OpenSSL asks the kernel for at once */

SSL_CTX *tls_context(struct trust *trust, const char **why)
{
	static const unsigned char http[] = "\x08http/1.1";
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_alpn_protos(ctx, http, sizeof(http) - 1) != 0) {
		*why = "OpenSSL can't be initialised";
		SSL_CTX_free(ctx);
		return NULL;
	}
	X509_STORE *store = trust_store(trust, why);
	if (!store) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	trust_use(ctx, store);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	/* A long write is reported record by record. */
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* One read() may bring many records. */
	SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
	return ctx;
}

/* The dot at the end of a full name is in no certificate, and is not allowed in SNI (RFC 6066, 3).
 */
static bool expect_name(SSL *ssl, const char *host)
{
	char name[TARGET_HOST_MAX + 1];
	int n = snprintf(name, sizeof(name), "%s", host);

	if (n > 1 && name[n - 1] == '.')
		name[n - 1] = '\0';
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

SSL *tls_new(SSL_CTX *ctx, const char *host)
{
	SSL *ssl = SSL_new(ctx);

	/* The first of these accepts addresses and nothing else. */
	if (ssl && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1 &&
	    !expect_name(ssl, host)) {
		SSL_free(ssl);
		return NULL;
	}
	if (ssl)
		SSL_set_connect_state(ssl);
	return ssl;
}

const char *tls_refusal(const SSL *ssl)
{
	long verdict = SSL_get_verify_result(ssl);

	return verdict == X509_V_OK ? NULL : X509_verify_cert_error_string(verdict);
}
