#include "transport/stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

bool stream_begin(struct stream *s, int fd, SSL *ssl)
{
	*s = (struct stream){.fd = fd, .ssl = ssl};
	return !ssl || SSL_set_fd(ssl, fd) == 1;
}

void stream_close(struct stream *s, bool orderly)
{
	struct linger at_once = {.l_onoff = 1};

	if (s->fd < 0)
		return;
	if (!orderly)
		setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	else if (s->ssl)
		SSL_shutdown(s->ssl); /* sends the end of TLS and waits for nothing */
	SSL_free(s->ssl);
	ERR_clear_error();
	close(s->fd);
	*s = (struct stream){.fd = -1};
}

/* Why a call of OpenSSL returned nothing. */
static int fault_of(struct stream *s, int ret)
{
	int err = errno;
	unsigned long fault;

	switch (SSL_get_error(s->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return err ? -err : 0;
	default:
		fault = ERR_peek_last_error();
		if (ERR_GET_REASON(fault) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
			return 0;
		s->fault = ERR_reason_error_string(fault);
		return -EPROTO;
	}
}

/* SSL_get_error() looks at the errors of the thread. There are hardly ever any, and to clear an
 * empty list costs much more than to look at it. */
static void forget_errors(void)
{
	if (ERR_peek_error())
		ERR_clear_error();
	errno = 0;
}

int stream_shake(struct stream *s)
{
	if (!s->ssl)
		return 1;
	forget_errors();
	int ret = SSL_do_handshake(s->ssl);
	s->wants_write = ret != 1 && SSL_want_write(s->ssl);
	return ret == 1 ? 1 : fault_of(s, ret);
}

static ssize_t or_errno(ssize_t n)
{
	if (n >= 0)
		return n;
	return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

ssize_t stream_read(struct stream *s, char *p, size_t n)
{
	size_t done = 0;

	if (!s->ssl)
		return or_errno(recv(s->fd, p, n, MSG_DONTWAIT));
	forget_errors();
	int ret = SSL_read_ex(s->ssl, p, n, &done);
	s->wants_write = !ret && SSL_want_write(s->ssl);
	return ret ? (ssize_t)done : fault_of(s, ret);
}

ssize_t stream_write(struct stream *s, const char *p, size_t n)
{
	size_t done = 0;

	if (!s->ssl)
		return or_errno(send(s->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL));
	forget_errors();
	int ret = SSL_write_ex(s->ssl, p, n, &done);
	if (ret)
		return (ssize_t)done;
	int fault = fault_of(s, ret);
	return fault ? fault : -EPIPE;
}

uint64_t stream_received(const struct stream *s)
{
	return s->ssl ? BIO_number_read(SSL_get_rbio(s->ssl)) : 0;
}

bool stream_holds_more(const struct stream *s)
{
	return !s->ssl || SSL_has_pending(s->ssl);
}
