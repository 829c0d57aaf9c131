/* budget.h - what the clients of an access section may use together.
 *
 * A budget has up to four limits: requests a second, requests in flight, clients and subscriptions.
 * Requests a second are a token bucket that holds those of one second. A client counts in the
 * budget of each section that names it, and must find room in each.
 *
 * A request is paid for when it is first sent; one that is sent again is not paid for again. It is
 * in flight in the budgets that its client had then, even if the client has left or its sections
 * are others by now. So budgets are counted references: those of the rules in force, of clients, of
 * requests in flight and of peers that wait (sched.h).
 *
 * Owns struct budget_peer, pending::in and pending::paid. Access.h knows which sections name a
 * client, the router and subscriptions.h ask for room. Pure: times are passed in, in ms of one
 * clock. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "requests/pending.h"

struct budget_limits { /* 0: no limit */
	unsigned rate; /* requests/s */
	unsigned max_in_flight, max_clients, max_subscriptions;
};

/* Why something was refused. */
enum budget_refusal {
	BUDGET_RATE_LIMITED,
	BUDGET_QUEUE_FULL, /* max_in_flight or max_subscriptions */
	BUDGET_TOO_MANY_CLIENTS,
	BUDGET_REFUSAL_N
};

TAILQ_HEAD(peer_list, peer);

/* Peers that take turns among themselves; groups take turns as well. Sched's. */
struct sched_group {
	struct peer_list turns;            /* peers with waiting requests; the first is next */
	TAILQ_ENTRY(sched_group) of_sched; /* sched::groups, while turns is not empty */
	size_t n;                          /* waiting requests of peers in turns */
	uint32_t *at_least; /* [k]: the peers of turns with more than k waiting requests */
	uint32_t levels;    /* length of at_least */
};

struct budget {
	unsigned refs;
	struct budget_limits limits;
	double tokens; /* requests that may be sent at once */
	int64_t at;    /* when tokens was computed */
	uint32_t clients, in_flight;
	size_t subscriptions;
	uint64_t requests; /* paid for */
	uint64_t refused[BUDGET_REFUSAL_N];

	/* sched */
	struct sched_group group; /* of the clients whose first section this is */
	struct peer_list waiting; /* peers that get no turn until it has room, in their order */
	uint32_t n_waiting;
	TAILQ_ENTRY(budget) of_sched; /* sched::budgets, while n_waiting is not 0 */

	char name[]; /* of the section */
};

/* The budgets of a client. */
struct budgets {
	unsigned refs;
	size_t n;
	struct budget *budget[];
};

struct budget *budget_new(const char *name); /* without limits */
struct budget *budget_ref(struct budget *b);
void budget_unref(struct budget *b);
void budget_set(struct budget *b, const struct budget_limits *limits);

/* Of n budgets, which are still to be set to references of its own. */
struct budgets *budgets_new(size_t n);

/* The client has these budgets from now on, in place of its former ones; takes the reference. NULL:
 * it has left, or there are no access rules. */
void budget_admit(struct peer *peer, struct budgets *budgets);

/* That of the first section that names the client; NULL: there is none. */
static inline struct budget *budget_first(const struct peer *peer)
{
	const struct budgets *s = peer->budget.budgets;

	return s && s->n ? s->budget[0] : NULL;
}

/* ---- requests ---- */

/* Requests that may be sent now, as far as this budget goes; at most 1,000. */
unsigned budget_room(struct budget *b, int64_t now);
/* When there is room again; -1: only when a request in flight has ended. */
int64_t budget_next(const struct budget *b);
/* How long the last of n requests waits for the rate; ms. */
int64_t budget_wait_ms(const struct budget *b, size_t n, int64_t now);

/* The budget that has no room for another request of this client; NULL: each has. fair: room that
 * other peers wait for is none. paid: the rate is no matter. */
struct budget *budget_lacking(const struct peer *peer, bool fair, bool paid, int64_t now);
/* How long another request of this client would wait for the rate of its budgets, behind those that
 * wait already. *slowest: the budget that it waits for; NULL: none. */
int64_t budget_peer_wait_ms(const struct peer *peer, int64_t now, struct budget **slowest);

/* How long something else than a request of this client waits for the rate; 0: it need not. */
int64_t budget_rate_wait_ms(const struct peer *peer, int64_t now);
void budget_pay(const struct peer *peer, int64_t now); /* something else than a request */
/* The request is sent, and in no queue; it is not in flight any more, and was until now. */
void budget_begin(struct pending *p, int64_t now);
void budget_end(struct pending *p);

/* ---- subscriptions ---- */

/* The budget that has no room for n more of this client; NULL: each has. */
struct budget *budget_lacking_subscriptions(const struct peer *peer, size_t n);
void budget_add_subscriptions(struct peer *peer, size_t n);
void budget_remove_subscriptions(struct peer *peer, size_t n);
