#include "tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <event2/util.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "trust.h"

enum { READ_AHEAD = 65536 }; /* bytes that OpenSSL asks the kernel for at once */

/* ---- the context ---- */

static void on_info(const SSL *ssl, int where, int ret)
{
	struct tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	if (!(where & SSL_CB_EXIT) || ret > 0)
		return;
	t->fault = ERR_peek_last_error();
	t->fault_errno = errno;
}

bool tls_init(struct tls *t, const char *ca_file, const char **why)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx) {
		*why = "OpenSSL can't be initialised";
		return false;
	}
	if (trust_fill(SSL_CTX_get_cert_store(ctx), ca_file, why) < 0) {
		SSL_CTX_free(ctx);
		return false;
	}
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(ctx, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_app_data(ctx, t);
	SSL_CTX_set_info_callback(ctx, on_info);
	*t = (struct tls){.ctx = ctx};
	return true;
}

void tls_fini(struct tls *t)
{
	SSL_CTX_free(t->ctx);
}

/* ---- what went wrong ---- */

void tls_forget_fault(struct tls *t)
{
	t->fault = 0;
	t->fault_errno = 0;
}

const char *tls_fault_phrase(const struct tls *t)
{
	const char *reason = t->fault ? ERR_reason_error_string(t->fault) : NULL;

	return reason ? reason : "the connection was closed";
}

/* ---- the certificate ---- */

const char *tls_refusal(const SSL *ssl)
{
	long verdict = SSL_get_verify_result(ssl);

	return verdict == X509_V_OK ? NULL : X509_verify_cert_error_string(verdict);
}

bool tls_is_for(X509_STORE_CTX *store, const char *host)
{
	X509 *certificate = X509_STORE_CTX_get_current_cert(store);
	unsigned char ip[16];

	if (X509_STORE_CTX_get_error_depth(store) != 0)
		return true;
	if (evutil_inet_pton(AF_INET, host, ip) == 1) {
		if (X509_check_ip_asc(certificate, host, 0) == 1)
			return true;
		X509_STORE_CTX_set_error(store, X509_V_ERR_IP_ADDRESS_MISMATCH);
		return false;
	}
	if (X509_check_host(certificate, host, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1)
		return true;
	X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
	return false;
}

/* ---- leaving the library ---- */

void tls_settle(struct tls *t)
{
	SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_sess_set_new_cb(t->ctx, NULL);
	SSL_CTX_set_keylog_callback(t->ctx, NULL);
}

void tls_take(SSL *ssl)
{
	SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	SSL_set_read_ahead(ssl, 1);
	SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
}
