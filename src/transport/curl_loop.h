/* curl_loop.h - libcurl's multi interface inside our libevent loop.
 *
 * Tells libcurl when a descriptor is ready and when a time has come. Its users set up the transfers
 * (token_client.h, tunnel.h).
 *
 * libcurl is never entered from its own callbacks, and done() is called only when libcurl is not on
 * the stack. Memory that libcurl frees is overwritten first: it held keys, tokens and passwords. */
#pragma once

#include <event2/event.h>

#include <curl/curl.h>

struct curl_loop;

/* A transfer has ended, and is to be removed, also from within; so may others be. */
typedef void curl_loop_done(void *owner, CURL *easy, CURLcode result);

/* NULL: no memory. */
struct curl_loop *curl_loop_new(struct event_base *base, curl_loop_done *done, void *owner);
void curl_loop_free(struct curl_loop *m); /* removes all transfers; also from within done() */

/* Never calls back from within. -ENOMEM: libcurl can't begin. */
int curl_loop_add(struct curl_loop *m, CURL *easy);
void curl_loop_remove(struct curl_loop *m, CURL *easy);
