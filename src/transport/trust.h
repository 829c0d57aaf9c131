/* trust.h - the certificate authorities that the daemon trusts: the system's and those of one PEM
 * file.
 *
 * The WebSocket and the token requests use different TLS stacks above OpenSSL; both use the store
 * of this room, so that they always agree. There is no way to switch checks off. */
#pragma once

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

/* The system's store and, if ca_file is not NULL, every certificate of that file. The file is read
 * when the store is asked for, until it could be. Of the system's directory only certificates that
 * a server needs are read, and its bundle when a server is not trusted without it, since that takes
 * tens of milliseconds and some MiB; so all who use TLS share them. */
struct trust;
struct trust *trust_new(const char *ca_file); /* to be released with trust_unref() */
struct trust *trust_ref(struct trust *t);
void trust_unref(struct trust *t); /* NULL will do */
/* NULL with *why set to a phrase that names the problem (static): the file can't be used now. For
 * trust_use(). */
X509_STORE *trust_store(struct trust *t, const char **why);

/* Servers are checked with this store, of which tls takes a reference. */
void trust_use(SSL_CTX *tls, X509_STORE *store);

/* Reads certificates in PEM form and adds them to the store; NULL: only checks them. Returns their
 * number, or a negative errno: one of them is damaged, or memory is short. */
int trust_read(BIO *pem, X509_STORE *store);
