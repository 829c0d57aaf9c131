/* words.h - words of the command line as what is subscribed to: one with a * is a glob, others are
 * keys. */
#pragma once

#include <stdbool.h>

#include <hpkv.h>

struct words {
	struct hpkv_bytes *keys, *patterns; /* owned; the text is argv's */
	size_t n_keys, n_patterns;
};

/* exact: all are keys. */
void words_sort(struct words *w, int argc, char **argv, bool exact);

/* A request about them; they must outlive it. */
struct hpkv_request words_request(const struct words *w, enum hpkv_op op);

/* That is not subscribed to any more. false: nothing is left. */
bool words_remove(struct words *w, bool pattern, struct hpkv_bytes name);
void words_free(struct words *w);
