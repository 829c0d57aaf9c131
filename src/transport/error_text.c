#include "transport/error_text.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/secret.h"

enum {
	RETRY_AFTER_MAX_S = 86400,
	REPEATED_MIN = 4, /* a secret of fewer characters is not searched for */
	SECRET_MIN =
		20, /* letters and digits in a row that may be a key, or a part of a token ... */
	SECRET_DIFFERENT_MIN = 6, /* ... if so many of them differ */
};

const char *error_text_of_errno(int err)
{
	switch (err) {
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EPIPE:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case EADDRNOTAVAIL:
	case EAFNOSUPPORT:
	case EACCES:
	case EPERM:
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		return strerror(err);
	default:
		return NULL;
	}
}

int error_text_retry_after(const char *text, time_t now)
{
	char *end;
	struct tm tm = {0};
	long seconds = strtol(text, &end, 10);

	if (end == text && strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		seconds = (long)(timegm(&tm) - now);
	else if (end == text || *end)
		return -1;
	return seconds < 0 ? 0 : seconds > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : (int)seconds;
}

static const struct {
	int code;
	const char *name;
} close_names[] = {
	{1000, "normal closure"},   {1001, "going away"},      {1002, "protocol error"},
	{1003, "unsupported data"}, {1005, "no code given"},   {1007, "invalid payload"},
	{1008, "policy violation"}, {1009, "message too big"}, {1010, "extension wanted"},
	{1011, "internal error"},   {1012, "service restart"}, {1013, "try again later"},
	{1014, "bad gateway"},      {3000, "unauthorized"},    {3003, "forbidden"},
	{3008, "timeout"},
};

const char *error_text_close_name(int code)
{
	for (size_t i = 0; i < sizeof(close_names) / sizeof(close_names[0]); i++) {
		if (close_names[i].code == code)
			return close_names[i].name;
	}
	return NULL;
}

/* ---- a peer's words ---- */

static bool is_blank(unsigned char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_of_secrets(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '-' || c == '_' || c == '+' || c == '%';
}

/* A decoded character of a query, and how many bytes it takes there. */
static size_t decode(const char *p, unsigned char *c)
{
	unsigned code;

	*c = (unsigned char)*p;
	if (*p != '%' || !isxdigit((unsigned char)p[1]) || !isxdigit((unsigned char)p[2]))
		return 1;
	sscanf(p + 1, "%2x", &code);
	*c = (unsigned char)code;
	return 3;
}

static void remember(struct error_text_form *form, const char *text, size_t n)
{
	form->n = n;
	EVP_Digest(text, n, form->digest, NULL, EVP_sha256(), NULL);
}

void error_text_remember(struct error_text_secret *secret, const char *path)
{
	const char *query = strchr(path, '?'), *begin = query ? strchr(query, '=') : NULL;
	size_t n = begin ? strcspn(begin + 1, "&") : 0, n_decoded = 0;
	char *decoded = secret_alloc(n + 1);

	*secret = (struct error_text_secret){0};
	for (const char *p = begin ? begin + 1 : "", *end = p + n; p < end; n_decoded++)
		p += decode(p, (unsigned char *)&decoded[n_decoded]);
	if (n >= REPEATED_MIN)
		remember(&secret->form[0], begin + 1, n);
	if (n_decoded >= REPEATED_MIN)
		remember(&secret->form[1], decoded, n_decoded);
	secret_free(&decoded);
}

/* How many bytes of text are the secret, if text begins with it; 0: it does not. */
static size_t repeats(struct span text, const struct error_text_form *form)
{
	unsigned char digest[ERROR_TEXT_DIGEST];

	if (!form->n || form->n > text.n)
		return 0;
	EVP_Digest(text.p, form->n, digest, NULL, EVP_sha256(), NULL);
	return memcmp(digest, form->digest, sizeof(digest)) == 0 ? form->n : 0;
}

/* Joined words have no digits, and fillers repeat one character. The end of a run whose beginning
 * was quoted is tested once more, with the same result. */
static bool may_be_secret(const char *run, size_t n)
{
	bool seen[128] = {false}, has_digit = false, is_joined = false;
	size_t different = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)run[i];
		has_digit |= c >= '0' && c <= '9';
		is_joined |= c == '-' || c == '_' || c == '+';
		different += !seen[c];
		seen[c] = true;
	}
	return n >= SECRET_MIN && different >= SECRET_DIFFERENT_MIN && (has_digit || !is_joined);
}

static size_t length_of_secret(struct span text, const struct error_text_secret *secret)
{
	size_t n = repeats(text, &secret->form[1]), run = 0;

	if (!n)
		n = repeats(text, &secret->form[0]);
	while (run < text.n && is_of_secrets((unsigned char)text.p[run]))
		run++;
	return run > n && may_be_secret(text.p, run) ? run : n;
}

/* How many bytes of text are quoted as one: a run of blanks, a possible secret, or a character.
 * piece: the quote. */
static size_t quote_piece(struct span text, const struct error_text_secret *known, char piece[8])
{
	size_t blanks = 0, secret = length_of_secret(text, known);
	unsigned char c = (unsigned char)text.p[0];

	if (secret) {
		strcpy(piece, "...");
		return secret;
	}
	while (blanks < text.n && is_blank((unsigned char)text.p[blanks]))
		blanks++;
	if (blanks) {
		strcpy(piece, " ");
		return blanks;
	}
	snprintf(piece, 8, c > ' ' && c < 0x7f ? "%c" : "\\x%02x", c);
	return 1;
}

void error_text_quote(char *out, size_t size, struct span text,
		      const struct error_text_secret *secret)
{
	static const char more[] = "...";
	char piece[8];
	size_t n = 0;

	while (text.n && is_blank((unsigned char)text.p[text.n - 1]))
		text.n--;
	while (text.n && is_blank((unsigned char)text.p[0]))
		text.p++, text.n--;
	while (text.n) {
		size_t took = quote_piece(text, secret, piece), length = strlen(piece);
		if (n + length + sizeof(more) > size) {
			memcpy(out + n, more, sizeof(more) - 1);
			n += sizeof(more) - 1;
			break;
		}
		memcpy(out + n, piece, length);
		n += length;
		text.p += took;
		text.n -= took;
	}
	out[n] = '\0';
}
