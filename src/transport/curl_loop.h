/* curl_loop.h - libcurl's multi interface inside our libevent loop.
 *
 * libcurl asks for two things to live in another's loop: to be told when a descriptor is ready, and
 * when a time has come. What it is asked to do is its users' affair (token_client.h, tunnel.h).
 *
 * libcurl is never entered from its own callbacks, and done() is called only when it is not on the
 * stack. What libcurl frees is overwritten first: there are keys, tokens and passwords in it. */
#pragma once

#include <event2/event.h>

#include <curl/curl.h>

struct curl_loop;

/* A transfer has ended. It is then removed, from within if you like; so may others be. */
typedef void curl_loop_done(void *owner, CURL *easy, CURLcode result);

/* NULL: no memory. */
struct curl_loop *curl_loop_new(struct event_base *base, curl_loop_done *done, void *owner);
void curl_loop_free(struct curl_loop *m); /* all are removed; also from within done() */

/* Never calls back from within. -ENOMEM: libcurl can't begin. */
int curl_loop_add(struct curl_loop *m, CURL *easy);
void curl_loop_remove(struct curl_loop *m, CURL *easy);
