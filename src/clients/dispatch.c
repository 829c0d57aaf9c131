#include "clients/dispatch.h"

#include <stdio.h>

#include "codec/reply.h"

void dispatch_fini(struct dispatch *d)
{
	buf_release(&d->scratch);
}

/* Answers with the line in scratch. */
static void say(struct dispatch *d, struct peer *peer, struct span id)
{
	router_say(d->router, peer, buf_span(&d->scratch), id.n > 0);
	buf_take(&d->scratch, buf_len(&d->scratch));
}

static void refuse(struct dispatch *d, struct peer *peer, enum reply_error error, struct span id,
		   const char *text)
{
	d->stats->requests_refused++;
	stats_ended(d->stats, d->op, outcome_of(error));
	reply_error(&d->scratch, error, id, text, -1);
	say(d, peer, id);
}

/* Answers with the object and frees it. */
static void say_object(struct dispatch *d, struct peer *peer, struct span id, struct buf *object)
{
	reply_object(&d->scratch, buf_span(object), id);
	buf_release(object);
	say(d, peer, id);
}

static void tell_status(struct dispatch *d, struct peer *peer, struct span id, bool top)
{
	struct buf object = {0};

	stats_ended(d->stats, d->op, OUTCOME_OK);
	d->ops->status(d->owner, peer, top, &object);
	say_object(d, peer, id, &object);
}

static void tell_stats(struct dispatch *d, struct peer *peer, struct span id)
{
	struct buf object = {0};

	stats_ended(d->stats, d->op,
		    OUTCOME_OK); /* before the figures are collected, so that they count it */
	d->ops->stats(d->owner, &object);
	say_object(d, peer, id, &object);
}

/* A request that is allowed, to its room. */
static void hand_over(struct dispatch *d, struct peer *peer, const struct request *request,
		      int64_t now)
{
	switch (request->op) {
	case OP_GET:
	case OP_RANGE:
		if (d->cache && cache_answers(d->cache, peer, request, now))
			break;
		router_request(d->router, peer, request, now);
		break;
	case OP_SET:
	case OP_PATCH:
	case OP_DELETE:
	case OP_INCREMENT:
		router_request(d->router, peer, request, now);
		break;
	case OP_SUBSCRIBE:
		subscriptions_subscribe(d->subscriptions, peer, request, now);
		break;
	case OP_UNSUBSCRIBE:
		stats_ended(d->stats, d->op, OUTCOME_OK);
		subscriptions_unsubscribe(d->subscriptions, peer, request);
		break;
	case OP_PING:
		stats_ended(d->stats, d->op, OUTCOME_OK);
		reply_pong(&d->scratch, request->id);
		say(d, peer, request->id);
		break;
	case OP_STATUS:
		tell_status(d, peer, request->id, request->top);
		break;
	case OP_STATS:
		tell_stats(d, peer, request->id);
		break;
	case OP_SEARCH:
	case OP_QUERY:
		if (!d->ops->nexus(d->owner, peer, request, now))
			refuse(d, peer, REPLY_UNKNOWN_OP, request->id,
			       "there is no HPKV Nexus here: nexus_url is not set");
		break;
	case OP_TOKEN:
		token_requests_ask(d->token_requests, peer, request, now);
		break;
	case OP_N:
		break;
	}
}

void dispatch_line(struct dispatch *d, struct peer *peer, struct span line, int64_t now)
{
	struct request request;
	struct request_fault fault;

	if (line.n == 0)
		return;
	d->stats->requests++;
	int error = request_parse(line, &request, &fault);
	d->op = request.op;
	if (error < 0) {
		refuse(d, peer, fault.error, fault.id, fault.text);
		return;
	}
	const char *forbidden = access_forbids(d->access, peer, &request, now);
	if (forbidden) {
		refuse(d, peer, REPLY_FORBIDDEN, request.id, forbidden);
		return;
	}
	hand_over(d, peer, &request, now);
}

void dispatch_too_long(struct dispatch *d, struct peer *peer, struct span prefix, size_t max_line)
{
	struct request request;
	struct request_fault fault;
	char text[80];

	d->stats->requests++;
	snprintf(text, sizeof(text), "the line is longer than max_line (%zu bytes) and was skipped",
		 max_line);
	/* The answer carries the messageId if it stands early in the line. */
	struct span id = request_parse(prefix, &request, &fault) < 0 ? fault.id : request.id;
	d->op = request.op;
	refuse(d, peer, REPLY_TOO_LARGE, id, text);
}
