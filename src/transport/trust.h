/* trust.h - the certificate authorities that the daemon trusts: the system's and those of one PEM
 * file.
 *
 * The WebSocket and the token requests use different TLS stacks above OpenSSL; both fill their
 * stores here, so that they always agree. There is no way to switch checks off. */
#pragma once

#include <openssl/bio.h>
#include <openssl/x509_vfy.h>

/* Adds the system's store and, if ca_file is not NULL, every certificate of that file. 0, or a
 * negative errno with *why set to a phrase that names the problem (static). */
int trust_fill(X509_STORE *store, const char *ca_file, const char **why);

/* Reads certificates in PEM form and adds them to the store; NULL: only checks them. Returns their
 * number, or a negative errno: one of them is damaged, or memory is short. */
int trust_read(BIO *pem, X509_STORE *store);
