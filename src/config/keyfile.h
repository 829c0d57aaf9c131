/* keyfile.h - the API key, or a proxy's credentials, from a file that only its owner (and perhaps a
 * group) can read.
 *
 * Refuses a file that belongs to somebody else than root or this process's user, that others can
 * read, write or run, or that its group can write; anything that is not a regular file; and content
 * that is no key: empty, too long, or with characters that could not stand in a header or URL. What
 * the file holds is never part of a message. */
#pragma once

enum { KEYFILE_KEY_MAX = 4096 };

/* Is this text what the file should hold? NULL, or the phrase that says why not. */
typedef const char *keyfile_check(const char *text);

/* 0: *key is set, freed by secret_free(). -ENOENT: there is no such file. Another -errno:
 * *why is a phrase for "the key file /path …" ("is longer than 4096 bytes").
 */
int keyfile_read(const char *path, keyfile_check *check, char **key, const char **why);

const char *keyfile_fault(const char *key); /* is it a key? */
/* Is it "user:password"? What follows the first colon is the password. */
const char *keyfile_login_fault(const char *login);
