/* import: stores the records of lines of JSON, many at once, as fast as hpkvd sends them.
 *
 * A write that hpkvd refuses without having executed it is repeated within its time. One whose
 * outcome nobody knows is looked at first, and repeated only if the key does not hold its value.
 * Records of one key are stored one after the other.
 *
 * With --resume a file says up to which line all is done, and up to which lines may have been sent.
 * Lines between the two are looked at first when the import goes on, so that none is skipped and
 * none is stored twice. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "field.h"
#include "base/mem.h"
#include "lines.h"
#include "meter.h"
#include "record.h"
#include "resume.h"
#include "show.h"
#include "visible.h"

enum { OPT_RESUME, OPT_DRY_RUN, OPT_DIFF };
enum {
	AT_ONCE = 256, /* under way */
	RING = 1024,   /* kept: with those that a former run may have sent */
	STEP = 512,    /* the state is ahead of what is sent by so many lines */
	TIMEOUT_MS = 600000,
	AGAIN_MS = 500,
	SAVE_EVERY_MS = 1000,
	VALUE_MAX = 3072, /* what the service is known to take */
};

enum state { DUE, ASKED, SETTLED, LEFT };               /* LEFT: its time was up; it is not done */
enum outcome { NOTHING, STORED, SAME, BAD, OUTCOME_N }; /* NOTHING: an empty line */

/* A line under way. */
struct slot {
	struct import *im;
	enum state state;
	enum outcome outcome; /* once it is settled */
	bool look;            /* asks what the key holds, before or instead of a write */
	bool repeat;          /* it is not sent for the first time */
	long line;
	int64_t bytes; /* of the input, up to its end */
	uint64_t hash; /* of these */
	struct buf text;
	struct record record; /* in text */
	uint64_t key;         /* its hash */
	bool found;           /* --diff: the key is there */
	struct buf old;       /* … and holds this */
	long long due, until; /* ms */
};

struct import {
	struct cli *c;
	struct lines lines;
	struct meter meter;
	struct slot slots[RING];
	long first, next; /* slots [first, next) are under way, by number of the line here */
	struct {
		long line;
		int64_t bytes;
		uint64_t hash;
	} done;               /* up to here all lines are settled */
	long doubtful;        /* lines up to here may have been sent by a former run */
	long saved_sent;      /* lines up to which the state says that they may have been sent */
	long long saved;      /* when; ms */
	long n[OUTCOME_N];    /* lines that are done, by outcome */
	int status, stopping; /* the worst so far; why no more is begun */
	bool reached;         /* the daemon has answered */
	int64_t size;         /* of the input, or -1 */
};

static bool is_dry(const struct import *im)
{
	return im->c->opt[OPT_DRY_RUN] != NULL;
}

static bool is_diff(const struct import *im)
{
	return im->c->opt[OPT_DIFF] != NULL;
}

static void worst(struct import *im, int status)
{
	if (status > im->status)
		im->status = status;
}

/* ---- the state ---- */

static int local_fault(const char *what, const char *path, int error)
{
	cli_say("import: %s %s: %s", what, visible_sentence(hpkv_str(path)), strerror(-error));
	return CLI_USAGE;
}

/* sent: lines up to which may be sent before the next save. */
static int save(struct import *im, long sent)
{
	const char *path = im->c->opt[OPT_RESUME];
	struct buf text = {0};

	if (!path)
		return CLI_DONE;
	buf_addf(&text,
		 "{\"import\":1,\"lines\":%ld,\"bytes\":%lld,\"hash\":\"%016llx\",\"sent\":%ld,"
		 "\"stored\":%ld,\"same\":%ld,\"bad\":%ld}\n",
		 im->done.line, (long long)im->done.bytes, (unsigned long long)im->done.hash, sent,
		 im->n[STORED], im->n[SAME], im->n[BAD]);
	int error = resume_write(path, buf_span(&text));
	buf_release(&text);
	im->saved = cli_now_ms();
	im->saved_sent = sent;
	return error ? local_fault("can't write", path, error) : CLI_DONE;
}

/* The lines that a former run has settled, which must be the same as then. */
static int skip_done(struct import *im, struct span state)
{
	struct json_value hash;
	struct span line;
	char now[20];
	long lines = (long)field_number(state, "lines", 0);
	int error = 0;

	while (im->lines.n < lines && !error) {
		if (lines_next(&im->lines, &line))
			continue;
		if (im->lines.ended)
			break;
		error = lines_fill(&im->lines);
	}
	if (error)
		return local_fault("can't read", "stdin", error);
	snprintf(now, sizeof(now), "%016llx", (unsigned long long)im->lines.hash);
	if (im->lines.n != lines || (double)im->lines.taken != field_number(state, "bytes", -1) ||
	    (lines > 0 && (!field_find(state, "hash", &hash) ||
			   !json_string_is(&hash, (struct span){now, strlen(now)})))) {
		cli_say("import: the input is not the one that %s is about",
			visible_sentence(hpkv_str(im->c->opt[OPT_RESUME])));
		return CLI_USAGE;
	}
	im->done.line = im->lines.n;
	im->done.bytes = im->lines.taken;
	im->done.hash = im->lines.hash;
	return CLI_DONE;
}

static int take_state(struct import *im, struct span state)
{
	im->doubtful = (long)field_number(state, "sent", 0);
	im->n[STORED] = (long)field_number(state, "stored", 0);
	im->n[SAME] = (long)field_number(state, "same", 0);
	im->n[BAD] = (long)field_number(state, "bad", 0);
	if (im->n[BAD])
		worst(im, CLI_REFUSED);
	return skip_done(im, state);
}

static int resume(struct import *im)
{
	const char *path = im->c->opt[OPT_RESUME];
	struct json_value version;
	struct buf text = {0};
	int status = CLI_DONE;

	if (!path)
		return CLI_DONE;
	int error = resume_read(path, &text);
	if (error == -ENOENT) {
		status = save(im, 0);
	} else if (error == -EBADMSG ||
		   (!error && !field_find(buf_span(&text), "import", &version))) {
		cli_say("import: %s is no state of an import", visible_sentence(hpkv_str(path)));
		status = CLI_USAGE;
	} else if (error) {
		status = local_fault("can't read", path, error);
	} else {
		status = take_state(im, buf_span(&text));
	}
	buf_release(&text);
	return status;
}

/* ---- what becomes of a record ---- */

static const char *safe_key(const struct record *r)
{
	struct hpkv_bytes key = record_key(r);
	const char *text = visible_name(key);

	free((char *)(size_t)key.p);
	return text;
}

static void reject(struct import *im, long line, const char *what, const char *why)
{
	meter_clear(&im->meter);
	cli_say("import: line %ld%s%s: %s", line, what ? ": " : "", what ? what : "", why);
}

static void settle(struct slot *s, enum outcome outcome)
{
	s->state = SETTLED;
	s->outcome = outcome;
}

static void refuse(struct slot *s, const struct hpkv_answer *a)
{
	struct import *im = s->im;
	struct buf value = {0};
	char why[500];

	record_stored(&value, &s->record.value);
	snprintf(why, sizeof(why), "%s (code %d; the value has %zu bytes)", a->error, a->code,
		 buf_len(&value));
	buf_release(&value);
	reject(im, s->line, safe_key(&s->record), why);
	worst(im, cli_exit_of(a->result));
	settle(s, BAD);
}

static bool holds_it(const struct slot *s, struct hpkv_bytes value)
{
	struct buf wanted = {0};

	record_stored(&wanted, &s->record.value);
	bool same = span_equal(buf_span(&wanted), (struct span){value.p, value.n});
	buf_release(&wanted);
	return same;
}

/* A former run has stored this record, and then a later one of the same key, whose value it holds.
 */
static bool is_overtaken(const struct slot *s, struct hpkv_bytes value)
{
	const struct import *im = s->im;

	for (long i = im->first; i < im->next; i++) {
		const struct slot *other = &im->slots[i % RING];
		if (other->line > s->line && other->line <= im->doubtful && other->key == s->key &&
		    other->state != SETTLED &&
		    json_string_same(&other->record.key, &s->record.key) && holds_it(other, value))
			return true;
	}
	return false;
}

/* It was asked what the key holds. */
static void looked(struct slot *s, const struct hpkv_answer *a)
{
	bool found = a->result == HPKV_OK;

	if (found && (holds_it(s, a->value) || is_overtaken(s, a->value))) {
		s->look = false;
		settle(s, SAME);
	} else if (is_diff(s->im)) {
		s->found = found;
		if (found)
			buf_add(&s->old, a->value.p, a->value.n);
		settle(s, STORED); /* it would be */
	} else {
		s->look = false;
		s->due = 0;
	}
}

/* It was not executed: again, unless its time is up. */
static void put_off(struct slot *s, const struct hpkv_answer *a)
{
	struct import *im = s->im;
	bool never = a->result == HPKV_NO_DAEMON && !im->reached;

	if (never || im->stopping || cli_left_ms(s->until) == 0) {
		s->state = LEFT;
		if (im->stopping)
			return;
		meter_clear(&im->meter);
		im->stopping = cli_fail("import", (struct hpkv_bytes){0}, a);
		return;
	}
	s->due = cli_now_ms() + (a->retry_after_ms > 0 ? a->retry_after_ms : AGAIN_MS);
}

static void on_answer(void *arg, const struct hpkv_answer *a)
{
	struct slot *s = arg;

	s->state = DUE;
	s->repeat = true;
	s->im->reached |= a->code != 0;
	switch (a->result) {
	case HPKV_OK:
		if (s->look)
			looked(s, a);
		else
			settle(s, STORED);
		break;
	case HPKV_NOT_FOUND:
		if (s->look)
			looked(s, a);
		else
			refuse(s, a);
		break;
	case HPKV_UNAVAILABLE:
	case HPKV_NO_DAEMON:
	case HPKV_BUSY:
		put_off(s, a);
		break;
	case HPKV_UNKNOWN:
		s->look = true;
		s->due = 0;
		break;
	case HPKV_REFUSED:
	case HPKV_INVALID:
	case HPKV_NO_MEMORY:
	case HPKV_CANCELLED:
		refuse(s, a);
		break;
	}
}

/* ---- sending ---- */

/* An earlier record of the same key must be settled first. (Another key with the same hash only
 * waits without need.) */
static bool waits_for_another(const struct import *im, const struct slot *s, long number)
{
	for (long i = im->first; i < number; i++) {
		const struct slot *other = &im->slots[i % RING];
		if (other->key == s->key && other->state != SETTLED)
			return true;
	}
	return false;
}

static void send_slot(struct slot *s)
{
	struct buf text = {0};

	buf_addf(&text, "{\"op\":\"%s\",\"key\":", s->look ? "get" : "set");
	buf_add(&text, s->record.key.text.p, s->record.key.text.n);
	if (!s->look) {
		buf_addf(&text, ",\"value\":");
		buf_add(&text, s->record.value.text.p, s->record.value.text.n);
	}
	buf_addf(&text, "}");
	struct span line = buf_span(&text);
	struct hpkv_request q = {.op = HPKV_JSON, .value = {line.p, line.n}};
	if (!s->repeat)
		s->until = cli_now_ms() +
			   (s->im->c->timeout_ms > 0 ? s->im->c->timeout_ms : TIMEOUT_MS);
	s->state = ASKED;
	int result = hpkv_send(s->im->c->hpkv, &q, on_answer, s);
	buf_release(&text);
	if (result) {
		struct hpkv_answer failed = {.result = (enum hpkv_result)result,
					     .error = hpkv_error(s->im->c->hpkv),
					     .reason = "",
					     .retry_after_ms = -1};
		on_answer(s, &failed);
	}
}

/* Sends what is due. Returns ms until something else is, or -1. */
static int send_due(struct import *im)
{
	long long next = -1, now = cli_now_ms();

	for (long i = im->first; i < im->next; i++) {
		struct slot *s = &im->slots[i % RING];
		if (s->state != DUE || waits_for_another(im, s, i))
			continue;
		if (im->stopping) {
			s->state = LEFT;
		} else if (s->due <= now) {
			send_slot(s);
		}
		if (s->state == DUE && (next < 0 || s->due < next))
			next = s->due;
	}
	if (next < 0)
		return -1;
	return next > now ? (int)(next - now) : 0;
}

/* ---- lines ---- */

static void show_difference(const struct import *im, struct slot *s)
{
	struct hpkv_bytes key = record_key(&s->record);
	struct buf value = {0};

	meter_clear((struct meter *)(size_t)&im->meter);
	struct span old = buf_span(&s->old);
	if (s->found) {
		fputs("- ", stdout);
		show_record(im->c, key, (struct hpkv_bytes){old.p ? old.p : "", old.n}, 0);
	}
	record_stored(&value, &s->record.value);
	struct span fresh = buf_span(&value);
	fputs("+ ", stdout);
	show_record(im->c, key, (struct hpkv_bytes){fresh.p ? fresh.p : "", fresh.n}, 0);
	buf_release(&value);
	free((char *)(size_t)key.p);
}

/* Names a record that the service is known to refuse. */
static bool is_refused(struct import *im, const struct record *r, long line)
{
	struct hpkv_bytes key = record_key(r);
	struct buf value = {0};
	char why[160] = "";

	record_stored(&value, &r->value);
	if (key.n > HPKV_KEY_MAX)
		snprintf(why, sizeof(why), "the key has %zu bytes, and the service takes %d", key.n,
			 HPKV_KEY_MAX);
	else if (buf_len(&value) > VALUE_MAX)
		snprintf(why, sizeof(why), "the value has %zu bytes, and the service takes %d",
			 buf_len(&value), VALUE_MAX);
	else if (!buf_len(&value))
		snprintf(why, sizeof(why), "the value is empty, which the service does not take");
	buf_release(&value);
	free((char *)(size_t)key.p);
	if (*why)
		reject(im, line, safe_key(r), why);
	return *why;
}

/* What is settled from the first on leaves. */
static void retire(struct import *im)
{
	while (im->first < im->next) {
		struct slot *s = &im->slots[im->first % RING];
		if (s->state != SETTLED)
			return;
		if (is_diff(im) && s->outcome == STORED)
			show_difference(im, s);
		im->n[s->outcome]++;
		im->done.line = s->line;
		im->done.bytes = s->bytes;
		im->done.hash = s->hash;
		buf_release(&s->text);
		buf_release(&s->old);
		im->first++;
	}
}

static void take_line(struct import *im, struct span line)
{
	struct slot *s = &im->slots[im->next++ % RING];

	*s = (struct slot){.im = im,
			   .look = is_diff(im) || im->lines.n <= im->doubtful,
			   .line = im->lines.n,
			   .bytes = im->lines.taken,
			   .hash = im->lines.hash};
	if (!line.n) {
		settle(s, NOTHING);
		return;
	}
	buf_add(&s->text, line.p, line.n);
	const char *why = record_read(buf_span(&s->text), &s->record);
	if (why) {
		reject(im, s->line, NULL, why);
		worst(im, CLI_REFUSED);
		settle(s, BAD);
		return;
	}
	s->key = json_string_hash(&s->record.key, 0);
	if (!is_dry(im) && !is_diff(im))
		return;
	if (is_refused(im, &s->record, s->line)) {
		worst(im, CLI_REFUSED);
		settle(s, BAD);
	} else if (is_dry(im)) {
		settle(s, STORED);
	}
}

/* Is there room for another line? What a former run may have sent is read before anything is sent.
 */
static bool has_room(const struct import *im)
{
	return im->next - im->first < (im->lines.n < im->doubtful ? RING : AT_ONCE) &&
	       !im->stopping;
}

/* Takes lines while there is room. The state must say that they may be sent before they are. */
static int take_lines(struct import *im)
{
	struct span line;

	while (has_room(im) && lines_next(&im->lines, &line)) {
		if (im->lines.n > im->saved_sent && !is_dry(im)) {
			int status = save(im, im->lines.n + STEP);
			if (status)
				return status;
		}
		take_line(im, line);
	}
	return CLI_DONE;
}

/* ---- all of it ---- */

/* Waits for an answer, for input, or for so long. */
static int wait_for_more(struct import *im, int ms)
{
	bool room = has_room(im) && !im->lines.ended;
	struct pollfd p[2] = {{.fd = hpkv_fd(im->c->hpkv), .events = POLLIN},
			      {.fd = room ? STDIN_FILENO : -1, .events = POLLIN}};

	if (poll(p, 2, ms) < 0)
		return CLI_DONE;
	hpkv_process(im->c->hpkv);
	int error = p[1].revents ? lines_fill(&im->lines) : 0;
	return error ? local_fault("can't read", "stdin", error) : CLI_DONE;
}

static bool is_over(const struct import *im)
{
	if (im->stopping) { /* what was asked is still waited for */
		for (long i = im->first; i < im->next; i++) {
			if (im->slots[i % RING].state == ASKED)
				return false;
		}
		return true;
	}
	return im->lines.ended && im->first == im->next && !buf_len(&im->lines.bytes);
}

/* Of the input; -1: it has no known size. */
static double share_done(const struct import *im)
{
	return im->size > 0 ? (double)im->done.bytes / (double)im->size : -1;
}

static int store_all(struct import *im)
{
	int status = CLI_DONE;

	while (!status && !is_over(im)) {
		status = take_lines(im);
		bool begun = im->lines.ended || im->lines.n >= im->doubtful;
		int ms = status || !begun ? -1 : send_due(im);
		retire(im);
		meter_tell(&im->meter, im->n[STORED] + im->n[SAME], share_done(im),
			   (struct hpkv_bytes){0});
		if (!status && show_flush())
			status = CLI_USAGE;
		if (!status && !is_over(im) && (im->first < im->next || !im->lines.ended))
			status = wait_for_more(im, im->stopping ? -1 : ms);
		retire(im);
		if (!status && im->done.line && cli_now_ms() - im->saved >= SAVE_EVERY_MS)
			status = save(im, im->saved_sent);
	}
	return status;
}

static int sum_up(struct import *im)
{
	bool people = isatty(STDERR_FILENO);
	long left = 0;

	for (; im->first < im->next; im->first++) {
		struct slot *s = &im->slots[im->first % RING];
		if (s->state == SETTLED)
			im->n[s->outcome]++;
		else
			left++;
		buf_release(&s->text);
		buf_release(&s->old);
	}
	worst(im, im->stopping);
	long good = im->n[STORED] + (is_diff(im) ? 0 : im->n[SAME]), bad = im->n[BAD] + left;
	if (is_dry(im) || is_diff(im))
		cli_say("import: %s would %s, %s", say_count(good, "record"),
			is_dry(im) ? "be sent" : "change", say_count(bad, "wrong line"));
	else if (im->status || people)
		cli_say("import: %s stored, %ld not", say_count(good, "record"), bad);
	return im->status && im->n[STORED] + im->n[SAME] ? CLI_REFUSED : im->status;
}

static int run(struct cli *c, int argc, char **argv)
{
	static struct import im;

	(void)argc;
	(void)argv;
	im.c = c;
	if ((c->opt[OPT_DRY_RUN] || c->opt[OPT_DIFF]) + (c->opt[OPT_RESUME] != NULL) > 1)
		return cli_usage(c, "--dry-run and --diff store nothing, so there is nothing to "
				    "--resume");
	if (isatty(STDIN_FILENO))
		cli_say("import: type lines like {\"key\":\"a\",\"value\":\"b\"}, then Ctrl-D");
	if (c->timeout_ms < 0)
		hpkv_set_timeout(c->hpkv, TIMEOUT_MS);
	im.size = lines_size();
	meter_begin(&im.meter, "record", !(c->terminal && is_diff(&im)));
	int status = resume(&im);
	if (!status) {
		meter_skip(&im.meter, im.n[STORED] + im.n[SAME], share_done(&im));
		status = store_all(&im);
		retire(&im);
		if (!status)
			status = save(&im, im.lines.n);
		meter_clear(&im.meter);
		worst(&im, status);
		status = sum_up(&im);
	}
	lines_free(&im.lines);
	return status;
}

const struct command cmd_import = {
	.name = "import",
	.args = "",
	.summary = "store the records of lines of JSON from stdin",
	.help = "Stores each line {\"key\":...,\"value\":...}, as export writes them, as fast as\n"
		"the service takes them. A service that is away is waited for, 10 minutes for\n"
		"each record, or --timeout. With --resume, FILE says how far it has come: the\n"
		"same command with the same input goes on there, skips nothing, and stores\n"
		"nothing twice. --diff prints what would change, and --dry-run checks the lines\n"
		"without asking anybody. Exit status 3: a part is stored; stderr names the rest.\n"
		"\n"
		"  hpkv import <app.jsonl\n"
		"  hpkv import --resume state <app.jsonl\n",
	.options = {[OPT_RESUME] = {"resume", 'R', "FILE", "go on where FILE says; keep it"},
		    [OPT_DRY_RUN] = {"dry-run", 'n', NULL, "only check the lines"},
		    [OPT_DIFF] = {"diff", 'd', NULL, "only print what would change"}},
	.min = 0,
	.max = 0,
	.exec = run,
};
