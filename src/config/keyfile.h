/* keyfile.h - the API key, a proxy's credentials, or header lines with some, from a file that only
 * its owner (and perhaps a group) can read.
 *
 * Refuses a file that belongs to a user other than root and this process's user, that others can
 * read, write or run, or that its group can write; anything but a regular file; and content that
 * can't be a key: empty, too long, or with characters that can't stand in a header or URL. A
 * message never holds any of the content. */
#pragma once

enum { KEYFILE_KEY_MAX = 4096 };

/* Checks the content. NULL: it is valid; else a phrase for the fault. */
typedef const char *keyfile_check(const char *text);

/* 0: *key is set; free it with secret_free(). -ENOENT: there is no such file. Another -errno:
 * *why is a phrase for "the key file /path …" ("is longer than 4096 bytes").
 */
int keyfile_read(const char *path, keyfile_check *check, char **key, const char **why);

const char *keyfile_fault(const char *key); /* is it a key? */
/* ... a local one, which is made here and must not be guessed? */
const char *keyfile_local_fault(const char *key);
/* Is it "user:password"? What follows the first colon is the password. */
const char *keyfile_login_fault(const char *login);
/* Are these header lines of a request, "Name: value", one or more? Those that are hpkvd's own
 * (Host, Content-Length …) are refused. */
const char *keyfile_headers_fault(const char *lines);
