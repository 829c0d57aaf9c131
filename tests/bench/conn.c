#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench.h"

enum { PLAIN_READ = 65536, TLS_READ = 16384, TLS_READ_AHEAD = 65536, OUT_MAX = 4 << 20 };

static SSL_CTX *new_tls(const SSL_METHOD *method)
{
	SSL_CTX *tls = SSL_CTX_new(method);

	if (!tls)
		bench_die("no TLS");
	SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* One read() then brings many records, when the peer sends small ones. */
	SSL_CTX_set_read_ahead(tls, 1);
	SSL_CTX_set_default_read_buffer_len(tls, TLS_READ_AHEAD);
	return tls;
}

SSL_CTX *conn_server_tls(const char *certificate, const char *key)
{
	SSL_CTX *tls = new_tls(TLS_server_method());

	if (SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
		bench_die("can't use %s and %s", certificate, key);
	return tls;
}

SSL_CTX *conn_client_tls(const char *ca_file)
{
	SSL_CTX *tls = new_tls(TLS_client_method());

	if (SSL_CTX_load_verify_locations(tls, ca_file, NULL) != 1)
		bench_die("can't use %s", ca_file);
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
	X509_VERIFY_PARAM_set1_ip_asc(SSL_CTX_get0_param(tls), "127.0.0.1");
	return tls;
}

static void take_over(struct conn *c, int fd, SSL_CTX *tls)
{
	*c = (struct conn){.fd = fd};
	if (!tls)
		return;
	c->ssl = SSL_new(tls);
	if (!c->ssl || SSL_set_fd(c->ssl, fd) != 1)
		bench_die("no TLS connection");
}

static void stop_blocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void conn_accept(struct conn *c, int fd, SSL_CTX *tls)
{
	take_over(c, fd, tls);
	stop_blocking(fd);
	if (c->ssl)
		SSL_set_accept_state(c->ssl);
}

void conn_client(struct conn *c, int fd, SSL_CTX *tls)
{
	take_over(c, fd, tls);
	if (c->ssl && SSL_connect(c->ssl) != 1)
		bench_die("TLS handshake: %s",
			  X509_verify_cert_error_string(SSL_get_verify_result(c->ssl)));
	stop_blocking(fd);
}

void conn_close(struct conn *c)
{
	SSL_free(c->ssl);
	close(c->fd);
	buf_release(&c->in);
	buf_release(&c->out);
}

/* Would the TLS call that returned n do better later? Else the stream has ended. */
static bool tls_again(SSL *ssl, int n)
{
	int error = SSL_get_error(ssl, n);

	ERR_clear_error();
	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static bool fill_tls(struct conn *c)
{
	do {
		int n = SSL_read(c->ssl, buf_room(&c->in, TLS_READ), TLS_READ);
		if (n <= 0)
			return tls_again(c->ssl, n);
		buf_grew(&c->in, (size_t)n);
	} while (SSL_has_pending(c->ssl));
	return true;
}

bool conn_fill(struct conn *c)
{
	if (c->ssl)
		return fill_tls(c);

	ssize_t n = read(c->fd, buf_room(&c->in, PLAIN_READ), PLAIN_READ);
	if (n > 0)
		buf_grew(&c->in, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

bool conn_flush(struct conn *c)
{
	for (size_t left; (left = buf_len(&c->out)) > 0;) {
		const char *p = buf_span(&c->out).p;
		ssize_t n = c->ssl ? SSL_write(c->ssl, p, left < INT_MAX ? (int)left : INT_MAX)
				   : write(c->fd, p, left);
		if (n > 0)
			buf_take(&c->out, (size_t)n);
		else if (c->ssl)
			return tls_again(c->ssl, (int)n);
		else
			return n < 0 && (errno == EAGAIN || errno == EINTR);
	}
	return true;
}

void conn_watch(struct conn *c, int epoll, void *owner)
{
	size_t queued = buf_len(&c->out);
	uint32_t due = (queued ? EPOLLOUT : 0) | (queued < OUT_MAX ? EPOLLIN : 0);

	if (due == c->watched)
		return;
	struct epoll_event e = {.events = due, .data.ptr = owner};
	if (epoll_ctl(epoll, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &e) < 0)
		bench_die("epoll: %s", strerror(errno));
	c->watched = due;
}
