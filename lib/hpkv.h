/* hpkv.h - libhpkv: C programs talk to hpkvd, the local daemon that shares one connection to HPKV.
 *
 *	#include <hpkv.h>
 *	#include <stdio.h>
 *
 *	int main(void)
 *	{
 *		struct hpkv *h = hpkv_new(NULL);
 *		struct hpkv_bytes value;
 *		int r = hpkv_get(h, hpkv_str("user:1"), &value);
 *		if (r == HPKV_OK)
 *			printf("%.*s\n", (int)value.n, value.p);
 *		else
 *			fprintf(stderr, "%s\n", hpkv_error(h));
 *		hpkv_free(h);
 *		return r != HPKV_OK;
 *	}
 *
 * Build it with: cc get.c $(pkg-config --cflags --libs libhpkv)
 *
 * **The handle.** A struct hpkv is one connection to the daemon's socket. It connects when a
 * connection is first needed, and again after one was lost. It uses no thread and no signal, needs
 * only libc, and never ends the program: without memory, calls return HPKV_NO_MEMORY.
 *
 * **Two ways to use it**, which may be mixed. The blocking calls (hpkv_get() … hpkv_call()) return
 * when the answer has come or the time is up. In an event loop, watch hpkv_fd() for reading and
 * call hpkv_process() whenever it is readable; hpkv_send() sends a request and calls back with its
 * answer.
 *
 * **Threads.** A handle belongs to one thread at a time. Handles share nothing, so each thread may
 * have its own. After a fork() only one of the two processes may use a handle; the other may only
 * hpkv_free() it.
 *
 * **Callbacks** run inside hpkv_process(), hpkv_wait(), hpkv_free() and the blocking calls, never
 * inside hpkv_send(). Within one, hpkv_send() and hpkv_free() are allowed; blocking calls,
 * hpkv_process() and hpkv_wait() are not (HPKV_BUSY). A callback's arguments are valid until it
 * returns.
 *
 * **Memory.** Values, records and answers of a blocking call belong to the handle and are valid
 * until the next blocking call with it. Keys and values have a length and may hold any UTF-8, NUL
 * included; other bytes are refused (HPKV_INVALID). The library's own have a NUL behind them, which
 * the length does not count. Sentences (error, text) are C strings; a NUL within one becomes a
 * space.
 *
 * **When the daemon restarts**, or its connection is lost for another reason, the handle connects
 * again: at once, then after pauses that grow from 20 ms to 2 s. Callers see a pause and no error:
 *
 * - Requests that were not executed wait, and are sent to the new daemon: those that were not sent,
 *   those that the old daemon refused because it was ending, and those that are made meanwhile. So
 *   do requests that may be repeated without harm (all but set, patch, delete and increment).
 * - A request waits no longer than its own time (hpkv_set_timeout()). Then it ends as
 *   HPKV_NO_DAEMON.
 * - A write that may have been executed is never repeated: it ends as HPKV_UNKNOWN. An orderly end
 *of the daemon (a restart, an upgrade) leaves no such write, unless the service did not answer it
 *   within 5 s; a crash may.
 * - Subscriptions are made again, however long that takes. HPKV_EVENT_LOST is reported, then, for
 *   each key, its current value (HPKV_INITIAL), for each pattern an HPKV_EVENT_GAP, and at last
 *   HPKV_EVENT_BACK. The two always alternate.
 *
 * A handle that has never reached a daemon fails at once (HPKV_NO_DAEMON) if there is none.
 * hpkv_set_reconnect() switches all this off.
 *
 * **The ABI** is versioned (libhpkv.so.0, symbols LIBHPKV_0). Enumerators never change their
 * values; struct hpkv_answer and struct hpkv_event may grow at their end. */
#ifndef HPKV_H
#define HPKV_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HPKV_API __attribute__((visibility("default")))
#else
#define HPKV_API
#endif

/* One connection to the daemon. */
struct hpkv;

/* Bytes with a length. p is NULL when there is no value at all, as of a deleted key. */
struct hpkv_bytes {
	const char *p;
	size_t n;
};

/* A C string as bytes. */
static inline struct hpkv_bytes hpkv_str(const char *s)
{
	struct hpkv_bytes bytes;

	bytes.p = s;
	bytes.n = s ? strlen(s) : 0;
	return bytes;
}

/* The outcome of a request. hpkv_error() explains it in a sentence for people. */
enum hpkv_result {
	HPKV_OK = 0,
	HPKV_NOT_FOUND = -1, /* there is no such key */
	HPKV_REFUSED =
		-2,            /* refused by the access rules, the daemon or the service; the same
				  request     will be refused again. See code and reason of the answer */
	HPKV_NO_DAEMON = -3,   /* the daemon can't be reached; nothing was executed */
	HPKV_UNAVAILABLE = -4, /* not done in time: no connection to the service, a rate limit, a
				  full queue. Nothing was changed: try again later */
	HPKV_UNKNOWN = -5, /* a write was sent, and its answer never came: it was executed, or it
			      was not. Look before you repeat it */
	HPKV_INVALID = -6, /* an argument is invalid; nothing was sent */
	HPKV_BUSY = -7,    /* a blocking call within a callback, or 16 MiB are unsent */
	HPKV_NO_MEMORY = -8,
	HPKV_CANCELLED = -9 /* the handle was freed before the answer came */
};

/* Operations. 1 to 6 are HPKV's own numbers. */
enum hpkv_op {
	HPKV_GET = 1,
	HPKV_SET = 2,
	HPKV_PATCH = 3,
	HPKV_DELETE = 4,
	HPKV_RANGE = 5,
	HPKV_INCREMENT = 6,
	HPKV_SUBSCRIBE = 7,
	HPKV_UNSUBSCRIBE = 8,
	HPKV_TOKEN = 9,
	HPKV_PING = 10,
	HPKV_STATUS = 11,
	HPKV_STATS = 12,
	HPKV_JSON = 100 /* any request, as the text of a JSON object */
};

/* A request. Set what its op needs and leave the rest zero, as a designated initialiser does:
 * (struct hpkv_request){.op = HPKV_GET, .key = hpkv_str("user:1")}. It need not outlive the call
 * that it is given to. */
struct hpkv_request {
	enum hpkv_op op;
	struct hpkv_bytes key;     /* get, set, patch, delete, increment; range: the first key */
	struct hpkv_bytes end_key; /* range: the last key, included */
	struct hpkv_bytes value;   /* set: the value; patch: merged or appended; increment: a number
				      as text, default 1; token: the access pattern; HPKV_JSON: the
				      request. Its messageId is returned in the answer's line; without
				      a timeoutMs it gets the handle's */
	unsigned limit;            /* range: at most so many records; 0: 100 */
	const struct hpkv_bytes *keys; /* subscribe, unsubscribe, token */
	size_t n_keys;
	const struct hpkv_bytes
		*patterns; /* the same; globs, in which * stands for any characters */
	size_t n_patterns;
	int initial;             /* subscribe: report the current value of each key first */
	int timeout_ms;          /* 0: the handle's, see hpkv_set_timeout() */
	const void *reserved[4]; /* NULL */
};

struct hpkv_record {
	struct hpkv_bytes key, value;
};

/* An answer, or the reason why there is none. */
struct hpkv_answer {
	enum hpkv_result result;
	int code;          /* 200, 404 …, from the service or the daemon; 0: no answer came */
	const char *error; /* a sentence; "" on success */
	const char
		*reason; /* of the daemon's own errors: "forbidden", "upstream_down" …; else "" */
	int retry_after_ms;      /* when to try again; -1: unknown */
	struct hpkv_bytes value; /* get: the value; increment: the new number; token: the token */
	const struct hpkv_record *records; /* range */
	size_t n_records;
	int truncated;          /* range: more records follow */
	struct hpkv_bytes line; /* the answer as the daemon sent it, a JSON object on one line
				   (without the library's messageId); empty if none came */
};

/* Events, which come unasked while there are subscriptions. */
enum hpkv_event_type {
	HPKV_EVENT_CHANGE = 1, /* key has this value now; p NULL: it was deleted */
	HPKV_EVENT_GAP =
		2, /* changes of key, or of keys that match pattern, may have been missed */
	HPKV_EVENT_UPSTREAM_LOST = 3, /* the daemon has lost its connection to the service */
	HPKV_EVENT_UPSTREAM_BACK = 4, /* … and has it again. The two always alternate */
	HPKV_EVENT_LOST = 5, /* the connection to the daemon was lost; text says why. line is the
				daemon's last line, if it sent one */
	HPKV_EVENT_BACK = 6, /* … and all subscriptions are live again. Changes in between may have
				been missed: each pattern had an HPKV_EVENT_GAP, and the current
				value of each key has come or is coming, with HPKV_INITIAL */
	HPKV_EVENT_DROPPED = 7, /* a subscription (key or pattern) has ended: the access rules have
				   changed, or it could not be made again; text says why */
	HPKV_EVENT_OTHER = 100 /* a line of a type that this version of the library does not know */
};

/* Flags of a HPKV_EVENT_CHANGE. */
enum hpkv_event_flag {
	HPKV_INITIAL = 1, /* the value was read for this subscription; it need not have changed */
	HPKV_RESYNC = 2   /* it changed while the daemon had no connection to the service */
};

struct hpkv_event {
	enum hpkv_event_type type;
	unsigned flags;
	struct hpkv_bytes key, value, pattern;
	int64_t timestamp;    /* ms since 1970; 0: not known */
	int64_t since, until; /* a gap of a pattern: between these times */
	uint64_t skipped; /* earlier changes that this one replaces: they were not read in time */
	const char *text; /* the reason; "" if there is none */
	struct hpkv_bytes line; /* the daemon's line; empty for an event of the library's own */
};

/* Callbacks. arg is the one that was registered with them. */
typedef void hpkv_answer_fn(void *arg, const struct hpkv_answer *answer);
typedef void hpkv_event_fn(void *arg, const struct hpkv_event *event);

/* ---- the handle ---- */

/* A handle for the daemon behind a socket: a path, or @name for a name in the abstract namespace
 * (./@name is a path); unix: may stand before either. NULL: $HPKVD_SOCKET, written in the same way,
 * if that is set, else $XDG_RUNTIME_DIR/hpkvd.sock if it is there, else /run/hpkvd/hpkvd.sock. Does
 * not connect yet. NULL: no memory, or no descriptors (errno). */
HPKV_API struct hpkv *hpkv_new(const char *socket);

/* Closes the connection and frees the handle. Requests without an answer are called back with
 * HPKV_CANCELLED. Within a callback it takes effect when the callback has returned. NULL is
 * allowed.
 */
HPKV_API void hpkv_free(struct hpkv *h);

/* The name of the socket that the handle is, or would be, connected to. Valid until the next call.
 */
HPKV_API const char *hpkv_socket(struct hpkv *h);

/* Sets how long a request may take in all, 1 to 600000 ms; default 10000. The daemon gets this
 * limit, too, so that its error says what went wrong. */
HPKV_API void hpkv_set_timeout(struct hpkv *h, int ms);

/* on 0: the handle does not heal itself when its connection is lost. All requests without an answer
 * end then: as HPKV_UNKNOWN if they are writes that may have been executed, else as HPKV_NO_DAEMON.
 * All subscriptions end after HPKV_EVENT_LOST, without HPKV_EVENT_BACK. The next request connects
 * again. Default: on. */
HPKV_API void hpkv_set_reconnect(struct hpkv *h, int on);

/* Sets the callback for events; NULL: none. */
HPKV_API void hpkv_on_event(struct hpkv *h, hpkv_event_fn *event, void *arg);

/* ---- blocking calls: each returns an enum hpkv_result ---- */

/* Reads, or stores, the value of a key. */
HPKV_API int hpkv_get(struct hpkv *h, struct hpkv_bytes key, struct hpkv_bytes *value);
HPKV_API int hpkv_set(struct hpkv *h, struct hpkv_bytes key, struct hpkv_bytes value);

/* Merges a JSON object into the stored one; appends anything else to what is stored. */
HPKV_API int hpkv_patch(struct hpkv *h, struct hpkv_bytes key, struct hpkv_bytes value);

/* Deletes a key. */
HPKV_API int hpkv_delete(struct hpkv *h, struct hpkv_bytes key);

/* The records from one key to another, both included, in byte order; limit 0: 100, at most 1000.
 * See the answer's records and truncated. */
HPKV_API int hpkv_range(struct hpkv *h, struct hpkv_bytes from, struct hpkv_bytes to,
			unsigned limit, const struct hpkv_answer **answer);

/* ---- ranges page by page ---- */

enum { HPKV_KEY_MAX = 512 }; /* bytes: the longest key that the service is known to take */

/* The first key that can follow this one in the order of a range, when no key exceeds most bytes
 * (HPKV_KEY_MAX): the start of the next page. It is the key followed by a NUL. If that is too long,
 * the last character that can be raised is raised, and all behind it dropped. The key is written to
 * out, which has room for most bytes. Returns its length; 0: no key can follow. */
HPKV_API size_t hpkv_key_after(struct hpkv_bytes key, size_t most, char *out);

/* The last key that can begin with prefix: the end of a range over all such keys. It has most
 * bytes. Returns most; 0: the prefix is longer than that. */
HPKV_API size_t hpkv_key_last(struct hpkv_bytes prefix, size_t most, char *out);

/* ---- more blocking calls ---- */

/* Adds a whole number; *sum is the sum as the service writes it. */
HPKV_API int hpkv_increment(struct hpkv *h, struct hpkv_bytes key, long long by,
			    struct hpkv_bytes *sum);

/* Subscribes to keys and globs. Once it has returned, every change is reported to the callback of
 * hpkv_on_event(). initial: the current value of each key is reported first. */
HPKV_API int hpkv_subscribe(struct hpkv *h, const struct hpkv_bytes *keys, size_t n_keys,
			    const struct hpkv_bytes *patterns, size_t n_patterns, int initial);

/* Ends these subscriptions, or all if none are named. */
HPKV_API int hpkv_unsubscribe(struct hpkv *h, const struct hpkv_bytes *keys, size_t n_keys,
			      const struct hpkv_bytes *patterns, size_t n_patterns);

/* Makes a token for a browser or another machine, which may subscribe to these keys and globs, and
 * read and write the keys that the regex access_pattern matches (NULL: the daemon decides). An
 * access rule must grant it. */
HPKV_API int hpkv_token(struct hpkv *h, const struct hpkv_bytes *keys, size_t n_keys,
			const struct hpkv_bytes *patterns, size_t n_patterns,
			const char *access_pattern, struct hpkv_bytes *token);

/* Asks the daemon, never the service, for an answer. */
HPKV_API int hpkv_ping(struct hpkv *h);

/* The state of the daemon: a line of JSON, see "status" of the protocol. */
HPKV_API int hpkv_status(struct hpkv *h, struct hpkv_bytes *line);

/* Sends any request and waits for its answer. *answer is always set; answer may be NULL. */
HPKV_API int hpkv_call(struct hpkv *h, const struct hpkv_request *request,
		       const struct hpkv_answer **answer);

/* Why the last blocking call, or hpkv_send(), failed: a sentence; "" if it did not. Valid until the
 * next call. h NULL: a handle that could not be made. */
HPKV_API const char *hpkv_error(const struct hpkv *h);

/* ---- event loops ---- */

/* A descriptor that is readable when hpkv_process() has something to do. It stays the same for the
 * life of the handle, also across reconnects. Never read, write or close it. */
HPKV_API int hpkv_fd(const struct hpkv *h);

/* Does all that can be done without waiting: writes, reads, calls back, checks deadlines, connects
 * again. Returns how many callbacks were run, or HPKV_BUSY. */
HPKV_API int hpkv_process(struct hpkv *h);

/* Waits for something to do, at most timeout_ms (-1: for ever), and does it. Returns as
 * hpkv_process(); also 0 when a signal came. */
HPKV_API int hpkv_wait(struct hpkv *h, int timeout_ms);

/* Sends a request and returns; done (which may be NULL) is called once with its answer. Returns
 * HPKV_OK, or an error: then nothing was sent, and done is not called. Errors are HPKV_INVALID,
 * HPKV_NO_DAEMON, HPKV_BUSY, HPKV_NO_MEMORY, HPKV_CANCELLED (the handle is being freed). */
HPKV_API int hpkv_send(struct hpkv *h, const struct hpkv_request *request, hpkv_answer_fn *done,
		       void *arg);

/* The version of the library, "0.1.0". */
HPKV_API const char *hpkv_version(void);

#ifdef __cplusplus
}
#endif

#endif
