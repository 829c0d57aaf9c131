#include "transport/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/mem.h"

struct trust {
	unsigned users;
	char *ca_file;     /* or NULL */
	X509_STORE *store; /* NULL: not read yet, or it could not be */
};

/* A certificate that the store has already is no failure: the file may repeat the system's. */
static int add(X509_STORE *store, X509 *certificate)
{
	if (X509_STORE_add_cert(store, certificate) == 1)
		return 0;
	return ERR_GET_REASON(ERR_peek_last_error()) == X509_R_CERT_ALREADY_IN_HASH_TABLE ? 0
											  : -EINVAL;
}

/* OpenSSL must not ask at the terminal for the password of an encrypted file. */
static int no_password(char *out, int size, int writing, void *user)
{
	(void)out, (void)size, (void)writing, (void)user;
	return -1;
}

/* PEM_read_bio_X509() tells the end of the text and a damaged certificate apart only by its error.
 */
int trust_read(BIO *pem, X509_STORE *store)
{
	int found = 0, err = 0;
	X509 *certificate;

	ERR_clear_error();
	while (!err && (certificate = PEM_read_bio_X509(pem, NULL, no_password, NULL))) {
		err = store ? add(store, certificate) : 0;
		X509_free(certificate);
		found++;
	}
	if (!err && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		err = -EBADMSG;
	ERR_clear_error();
	return err ? err : found;
}

/* 0, or -errno with *why as trust_store() has it. */
static int add_file(X509_STORE *store, FILE *f, const char **why)
{
	BIO *pem = BIO_new_fp(f, BIO_NOCLOSE);
	int found = pem ? trust_read(pem, store) : -ENOMEM;

	BIO_free(pem);
	if (found < 0)
		*why = "a certificate in it is broken";
	else if (!found)
		*why = "there is no PEM certificate in it";
	return found > 0 ? 0 : found < 0 ? found : -EBADMSG;
}

static const char *open_phrase(int err)
{
	switch (err) {
	case ENOENT:
		return "there is no such file";
	case EACCES:
		return "it may not be read";
	default:
		return "it can't be opened";
	}
}

/* A search in the system's store may leave errors behind, if SSL_CERT_DIR names a file, say.
 * libcurl takes the oldest error of the queue for the reason of a failed handshake. */
static int on_verified(int ok, X509_STORE_CTX *ctx)
{
	(void)ctx;
	ERR_clear_error();
	return ok;
}

/* ---- the system's store ---- */

/* Most systems have it twice: in a directory, where a certificate is found by its subject, and in a
 * bundle. The directory is asked first. The bundle takes megabytes, so it is read only when a
 * server is not trusted without it. It can't be a lookup method of the store: OpenSSL looks for the
 * issuer of each certificate in the store first, also of those that the server has sent, so it
 * would ask for the bundle in nearly every handshake. */
static void use_directory(X509_STORE *store)
{
	X509_LOOKUP *directory = X509_STORE_add_lookup(store, X509_LOOKUP_hash_dir());

	if (!directory || X509_LOOKUP_add_dir(directory, NULL, X509_FILETYPE_DEFAULT) != 1)
		ERR_clear_error();
}

/* OpenSSL keeps the first place of a store's data for its user. */
static bool has_all(const X509_STORE *store)
{
	return X509_STORE_get_ex_data(store, 0) != NULL;
}

/* There is a bundle, but no memory or descriptor to read it with: at another time there may be. */
static bool is_out_of_reach(void)
{
	const char *path = secure_getenv(X509_get_default_cert_file_env());
	int fd =
		open(path ? path : X509_get_default_cert_file(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EINTR;
	close(fd);
	return false;
}

/* A machine without any authorities of its own is fine when ca_file is all that is to be trusted;
 * without ca_file every check will fail, with a message. */
static void use_all(X509_STORE *store)
{
	if (is_out_of_reach())
		return;
	if (X509_STORE_set_default_paths(store) != 1)
		ERR_clear_error();
	X509_STORE_set_ex_data(store, 0, store);
}

/* Is the server trusted with the certificates that are there? */
static bool is_enough(X509_STORE_CTX *ctx)
{
	X509_STORE_CTX *trial = X509_STORE_CTX_new();
	bool enough = trial &&
		      X509_STORE_CTX_init(trial, X509_STORE_CTX_get0_store(ctx),
					  X509_STORE_CTX_get0_cert(ctx),
					  X509_STORE_CTX_get0_untrusted(ctx)) == 1 &&
		      X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(trial),
					     X509_STORE_CTX_get0_param(ctx)) == 1 &&
		      X509_verify_cert(trial) == 1;

	X509_STORE_CTX_free(trial);
	ERR_clear_error();
	return enough;
}

/* In place of X509_verify_cert(), which works only once on each context. */
static int verify(X509_STORE_CTX *ctx, void *arg)
{
	X509_STORE *store = X509_STORE_CTX_get0_store(ctx);

	(void)arg;
	if (!has_all(store) && !is_enough(ctx))
		use_all(store);
	return X509_verify_cert(ctx);
}

void trust_use(SSL_CTX *tls, X509_STORE *store)
{
	SSL_CTX_set1_cert_store(tls, store);
	SSL_CTX_set_cert_verify_callback(tls, verify, NULL);
}

/* The system's store, as OpenSSL was told where it is, and then the file's. */
static int fill(X509_STORE *store, const char *ca_file, const char **why)
{
	use_directory(store);
	X509_STORE_set_verify_cb(store, on_verified);
	if (!ca_file)
		return 0;

	FILE *f = fopen(ca_file, "re");
	if (!f) {
		int err = -errno;
		*why = open_phrase(errno);
		return err;
	}
	int err = add_file(store, f, why);
	fclose(f);
	return err;
}

struct trust *trust_new(const char *ca_file)
{
	struct trust *t = mem_zalloc(sizeof(*t));

	t->users = 1;
	t->ca_file = ca_file ? mem_strdup(ca_file) : NULL;
	return t;
}

struct trust *trust_ref(struct trust *t)
{
	t->users++;
	return t;
}

void trust_unref(struct trust *t)
{
	if (!t || --t->users)
		return;
	X509_STORE_free(t->store);
	free(t->ca_file);
	free(t);
}

X509_STORE *trust_store(struct trust *t, const char **why)
{
	if (t->store)
		return t->store;
	X509_STORE *store = X509_STORE_new();
	if (!store) {
		*why = "out of memory: OpenSSL could not be initialised";
	} else if (fill(store, t->ca_file, why) < 0) {
		X509_STORE_free(store);
		store = NULL;
	}
	t->store = store;
	return store;
}
