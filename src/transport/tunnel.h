/* tunnel.h - asks an HTTP proxy for a tunnel (CONNECT), on a socket that is connected to it.
 *
 * libcurl holds the dialogue. It reads no further than the head of the answer, in however many
 * pieces that comes, so that the socket afterwards is as good as one that is connected to the
 * service itself: TLS runs through it, end to end. Any 2xx will do. Credentials are sent as Basic,
 * which proxies commonly accept; they are secret, but the proxy sees them in plain text.
 *
 * There are two uses: a tunnel by itself, for a WebSocket; and the options and the header callback
 * for a libcurl transfer of a token request. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

enum {
	TUNNEL_HEAD_MAX = 16384, /* bytes of an answer's head */
	TUNNEL_PHRASE_MAX = 60,  /* bytes of the proxy's own words that are repeated */
};

/* ---- a transfer through a proxy ---- */

/* The state of one dialogue; all zero at first. */
struct tunnel_talk {
	bool has_login, over; /* over: the tunnel is there */
	size_t head_bytes;
	int status;                         /* the proxy's answer; 0: none came */
	char phrase[TUNNEL_PHRASE_MAX + 1]; /* ... of its status line */
	char *user, *password;              /* secret */
};

/* login: "user:password"; NULL: none. Call tunnel_forget() when the transfer is gone. */
void tunnel_prepare(struct tunnel_talk *talk, CURL *easy, const char *login);
void tunnel_forget(struct tunnel_talk *talk); /* all zero again */
/* A header line from libcurl until the dialogue is over; returns what libcurl's callback must
 * return. An answer that refuses is not read further than its head. */
size_t tunnel_read(struct tunnel_talk *talk, const char *line, size_t n);
/* Why it has failed; error: libcurl's result. */
void tunnel_phrase(const struct tunnel_talk *talk, CURLcode result, const char *error, char *why,
		   size_t size);

/* ---- a tunnel by itself ---- */

struct tunnel_wish {
	int fd; /* connected to the proxy, by one connect() that did not wait (token_client.c says
		   why); stays its owner's */
	const char *host;
	uint16_t port;
	const char *login;
	int timeout_ms;
};

struct tunnel_answer {
	const char *why; /* a phrase, valid during the call; NULL: the tunnel is there */
	int status;      /* the proxy's answer; 0: none came */
};

struct tunnel;
typedef void tunnel_done(void *owner, const struct tunnel_answer *answer);

/* Never calls back from within. NULL: no memory. Once done was called it is gone; before that,
 * tunnel_cancel() ends it. */
struct tunnel *tunnel_new(struct event_base *base, const struct tunnel_wish *wish,
			  tunnel_done *done, void *owner);
void tunnel_cancel(struct tunnel *t);
