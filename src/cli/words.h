/* words.h - words of the command line as subscriptions: a word with a * is a glob, any other a key.
 */
#pragma once

#include <stdbool.h>

#include <hpkv.h>

struct words {
	struct hpkv_bytes *keys, *patterns; /* owned; the text is argv's */
	size_t n_keys, n_patterns;
};

/* Sorts the words into keys and patterns. exact: all are keys. */
void words_sort(struct words *w, int argc, char **argv, bool exact);

/* A request with these keys and patterns; they must outlive it. */
struct hpkv_request words_request(const struct words *w, enum hpkv_op op);

/* Removes a key or pattern whose subscription has ended. false: none is left. */
bool words_remove(struct words *w, bool pattern, struct hpkv_bytes name);

void words_free(struct words *w); /* what w owns; w itself is the caller's */
