#include "requests/blame.h"

#include <stdio.h>

#include "base/log.h"
#include "codec/wire.h"

enum {
	/* Weight of a loss. */
	WEIGHT_SUDDEN = 2,
	WEIGHT_MESSAGE = 3,
	WEIGHT_TRIAL = 6, /* the weight that puts a client on trial */
	WEIGHT_MAX = 27,  /* 128 answers end the trial */
	PAUSE_MS = 250,   /* before the next trial; doubles ... */
	PAUSES_MAX = 3,   /* ... so often, to two seconds. Longer pauses would let requests of an
			     innocent client time out */
	PAUSES_MEMORY_MS = 60000,
	ALONE_MS = 250, /* doubles with each further loss ... */
	ALONE_DOUBLINGS_MAX = 2,
	LOGGED_MAX = 8, /* clients logged per loss */
	CLOSE_NORMAL = 1000,
	CLOSE_GOING_AWAY = 1001,
	CLOSE_POLICY = 1008,
	CLOSE_TOO_BIG = 1009,
	CLOSE_RESTART = 1012,
	CLOSE_BAD_GATEWAY = 1014,
};

enum kind {
	KIND_NONE,
	KIND_SUDDEN,
	KIND_MESSAGE,
	KIND_SIZE,
};

static enum kind kind_of(const struct blame_end *end)
{
	int code = end->close_code;

	if (code == CLOSE_POLICY || (!code && end->dropped))
		return end->lasted_ms < BLAME_YOUNG_MS ? KIND_SUDDEN : KIND_NONE;
	if (!code || code == CLOSE_NORMAL || code == CLOSE_GOING_AWAY ||
	    (code >= CLOSE_RESTART && code <= CLOSE_BAD_GATEWAY))
		return KIND_NONE;
	return code == CLOSE_TOO_BIG ? KIND_SIZE : KIND_MESSAGE;
}

static void name_client(const struct pending *p, char out[96])
{
	const struct peer *peer = p->peer;

	if (p->reading)
		snprintf(out, 96, "a subscribed key");
	else if (peer && peer->silent)
		snprintf(out, 96, "the cache");
	else if (peer && peer->uid == (uid_t)-1)
		snprintf(out, 96, "client %llu (by TCP)", (unsigned long long)peer->number);
	else if (peer)
		snprintf(out, 96, "client %llu (pid %ld, uid %ld)",
			 (unsigned long long)peer->number, (long)peer->pid, (long)peer->uid);
	else
		snprintf(out, 96, "a client that has left (uid %ld)", (long)p->uid);
}

/* ---- length ---- */

static struct pending *longest(struct pending *const *sent, size_t n)
{
	struct pending *p = NULL;

	for (size_t i = 0; i < n; i++) {
		if (!p || sent[i]->body_len > p->body_len)
			p = sent[i];
	}
	return p;
}

bool blame_is_too_long(struct blame *b, size_t length, int64_t now)
{
	if (b->refused && now >= b->refused_until)
		b->refused = 0;
	return b->refused && length >= b->refused;
}

/* ---- records ---- */

/* The losses beyond those that put it on trial. */
static int further_losses(const struct blame_record *record)
{
	int beyond = record->weight - WEIGHT_TRIAL;

	return beyond > 0 ? beyond / WEIGHT_MESSAGE : 0;
}

/* The number of answers that ends its trial. */
static uint16_t answers_wanted(const struct blame_record *record)
{
	return (uint16_t)(record->weight < WEIGHT_TRIAL ? 0u : 1u << further_losses(record));
}

/* ---- users whose clients have left ---- */

static bool is_old(const struct blame_record *record, int64_t now)
{
	return now - record->at >= BLAME_MEMORY_MS;
}

static struct blame_user *find_user(struct blame *b, uid_t uid)
{
	for (size_t i = 0; i < b->n_users; i++) {
		if (b->users[i].uid == uid)
			return &b->users[i];
	}
	return NULL;
}

static struct blame_record *record_of_user(struct blame *b, uid_t uid)
{
	struct blame_user *u = find_user(b, uid);

	if (!u && b->n_users < BLAME_USERS_MAX) {
		u = &b->users[b->n_users++];
		*u = (struct blame_user){.uid = uid};
	} else if (!u) {
		u = &b->users[0];
		for (size_t i = 1; i < b->n_users; i++) {
			if (b->users[i].record.at < u->record.at)
				u = &b->users[i];
		}
		*u = (struct blame_user){.uid = uid};
	}
	return &u->record;
}

/* An old record is dropped at the first request (blame_lapses). */
void blame_join(struct blame *b, struct peer *peer)
{
	struct blame_user *u = find_user(b, peer->uid);

	peer->blame = u ? u->record : (struct blame_record){0};
	peer->blame.trial = answers_wanted(&peer->blame);
}

void blame_leave(struct blame *b, const struct peer *peer, int64_t now)
{
	if (!peer->blame.weight || is_old(&peer->blame, now))
		return;
	struct blame_record *record = record_of_user(b, peer->uid);
	if (peer->blame.weight >= record->weight || is_old(record, now))
		*record = peer->blame;
}

void blame_forget(struct blame *b)
{
	b->answered = b->refused = 0;
	b->n_users = 0;
	b->pauses = 0;
	b->next_trial = 0;
}

/* ---- clients ---- */

static struct blame_record *record_of(struct blame *b, const struct pending *p)
{
	return p->peer ? &p->peer->blame : record_of_user(b, p->uid);
}

static bool is_same_owner(const struct pending *p, const struct pending *q)
{
	return !p->reading && !q->reading && p->peer == q->peer && (p->peer || p->uid == q->uid);
}

/* Charges a client once per loss. True: this was the first time. */
static bool charge(struct blame *b, struct blame_record *record, unsigned weight, int64_t now)
{
	if (record->round == b->round)
		return false;
	if (is_old(record, now))
		record->weight = 0;
	weight += record->weight;
	record->weight = (uint8_t)(weight < WEIGHT_MAX ? weight : WEIGHT_MAX);
	record->round = b->round;
	record->at = now;
	record->repeated = 0;
	record->trial = answers_wanted(record);
	return true;
}

static void tell_trial(const struct pending *p, const struct blame_record *record)
{
	char name[96];

	name_client(p, name);
	log_notice("%s: connections were lost with requests of it in flight: its requests come "
		   "last, one at a time, until %u were answered",
		   name, record->trial);
}

static void tell_culprit(const struct pending *p, int close_code)
{
	char name[96];

	name_client(p, name);
	if (close_code)
		log_warning("%s: the service closed the connection (%d) over its request, which "
			    "was alone in flight",
			    name, close_code);
	else
		log_warning("%s: the connection was lost over its request, which was alone in "
			    "flight",
			    name);
}

static bool counts(const struct pending *p, enum kind kind, int64_t now)
{
	return kind != KIND_SUDDEN || (int32_t)((uint32_t)now - p->since) < BLAME_SUDDEN_MS;
}

/* Are all requests of one client? */
static bool is_one_owner(struct pending *const *sent, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		if (!is_same_owner(sent[0], sent[i]))
			return false;
	}
	return n > 0;
}

static void pause_trials(struct blame *b, int64_t now)
{
	if (now - b->paused_at > PAUSES_MEMORY_MS)
		b->pauses = 0;
	b->next_trial =
		now + ((int64_t)PAUSE_MS << (b->pauses < PAUSES_MAX ? b->pauses : PAUSES_MAX));
	b->paused_at = now;
	b->pauses++;
}

/* A read that is sent again goes on trial at once, unless the network may be the cause. */
static void try_repeated(const struct pending *p, struct blame_record *record)
{
	if (!p->peer || !request_op_is_read(p->op) || p->blame.losses < BLAME_LOSS ||
	    record->repeated == UINT8_MAX)
		return;
	record->repeated++;
	if (record->trial < record->repeated)
		record->trial = record->repeated;
}

struct loss {
	bool sudden;
	bool one; /* only one client is suspect */
	int64_t now;
	unsigned logged;
};

/* A request on trial was sent with nothing else in flight, so it is a strong suspect. */
static void judge_client(struct blame *b, struct pending *p, struct loss *loss)
{
	bool strong = !loss->sudden || p->tried;
	int losses = p->blame.losses + (strong ? BLAME_LOSS : BLAME_SUDDEN_LOSS);
	unsigned weight = strong ? WEIGHT_MESSAGE : WEIGHT_SUDDEN;

	p->blame.losses = (uint8_t)(losses < BLAME_READ_LOSSES ? losses : BLAME_READ_LOSSES);
	if (p->tried)
		pause_trials(b, loss->now);
	if (p->reading)
		return;
	struct blame_record *record = record_of(b, p);
	bool was_on_trial = record->trial > 0;
	if (!loss->sudden && (loss->one || p->tried))
		weight = WEIGHT_TRIAL;
	bool first = charge(b, record, weight, loss->now);
	if (first && !was_on_trial && record->trial && loss->logged++ < LOGGED_MAX)
		tell_trial(p, record);
	try_repeated(p, record);
}

/* The culprit of a 1009 is the longest request: the service takes all that are shorter than one it
 * takes. Its client is charged as well, or it could go on with ever shorter ones. */
static bool judge_length(struct blame *b, struct pending *const *sent, size_t n, struct loss *loss)
{
	struct pending *p = longest(sent, n);
	size_t length = wire_length(p->body_len);
	char name[96];

	if (length <= BLAME_SHORT || length <= b->answered)
		return false;
	if (!b->refused || length < b->refused)
		b->refused = length;
	b->refused_until = loss->now + BLAME_LONG_MS;
	name_client(p, name);
	log_warning("%s: the service closed the connection over a message of %zu bytes (1009): "
		    "requests of that length or more are refused for an hour",
		    name, length);
	loss->one = false;
	judge_client(b, p, loss);
	return true;
}

enum blame_verdict blame_judge(struct blame *b, struct pending *const *sent, size_t n,
			       const struct blame_end *end, int64_t now)
{
	enum kind kind = kind_of(end);
	struct loss loss = {
		.sudden = kind == KIND_SUDDEN, .one = is_one_owner(sent, n), .now = now};
	bool charged = false;

	if (kind == KIND_NONE || n == 0)
		return BLAME_NOBODY;
	b->round++;
	if (kind == KIND_SIZE && judge_length(b, sent, n, &loss))
		return BLAME_ONE;
	for (size_t i = 0; i < n; i++) {
		if (!counts(sent[i], kind, now))
			continue;
		charged = true;
		judge_client(b, sent[i], &loss);
	}
	if (!charged || n > 1 || !sent[0]->tried)
		return charged ? BLAME_SOMEBODY : BLAME_NOBODY;
	tell_culprit(sent[0], end->close_code);
	return BLAME_ONE;
}

bool blame_answered(struct blame *b, const struct pending *p)
{
	size_t length = wire_length(p->body_len);

	if (b->answered < length)
		b->answered = length;
	return p->tried && p->peer && p->peer->blame.trial && --p->peer->blame.trial == 0;
}

bool blame_lapses(struct peer *peer, int64_t now)
{
	if (!peer->blame.trial || !is_old(&peer->blame, now))
		return false;
	peer->blame = (struct blame_record){0};
	return true;
}

int64_t blame_alone_ms(const struct peer *peer)
{
	int further = further_losses(&peer->blame);

	return (int64_t)ALONE_MS << (further < ALONE_DOUBLINGS_MAX ? further : ALONE_DOUBLINGS_MAX);
}
