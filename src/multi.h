/* multi.h - libcurl's multi interface inside our libevent loop.
 *
 * libcurl asks for two things to live in another's loop: to be told when a descriptor is ready, and
 * when a time has come. What it is asked to do is its users' affair (token.h, tunnel.h).
 *
 * libcurl is never entered from its own callbacks, and done() is called only when it is not on the
 * stack. What libcurl frees is overwritten first: there are keys, tokens and passwords in it. */
#pragma once

#include <event2/event.h>

#include <curl/curl.h>

struct multi;

/* A transfer has ended. It is then removed, from within if you like; so may others be. */
typedef void multi_done(void *owner, CURL *easy, CURLcode result);

/* NULL: no memory. */
struct multi *multi_new(struct event_base *base, multi_done *done, void *owner);
void multi_free(struct multi *m); /* all are removed; also from within done() */

/* Never calls back from within. -ENOMEM: libcurl can't begin. */
int multi_add(struct multi *m, CURL *easy);
void multi_remove(struct multi *m, CURL *easy);
