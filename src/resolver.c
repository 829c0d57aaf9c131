/* One question goes through these steps, each in a turn of the loop of its own so that done() is
 * never called from within resolver_ask():
 *
 *   look at the name itself and into the hosts file; if that does not answer, ask for A and AAAA
 * records at once; when both are answered, or one is and the other is late, or the time is up: tell
 * the owner.
 *
 * libevent calls back exactly once for each record asked for, also for one that was cancelled, and
 * needs its DNS client until then. So a question whose owner has been told, or has cancelled, lives
 * on unseen until nothing is pending. */
#include "resolver.h"

#include <stdbool.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <arpa/inet.h>

#include <event2/dns.h>

#include "log.h"
#include "mem.h"
#include "timer.h"

enum {
	LATE_MS = 500, /* how long the slower of two record types is waited for */
	FAMILIES = 2,  /* IPv4 and IPv6, in the order in which they are answered */
};

/* Some name servers answer "WwW.ExAmPlE.cOm" in lower case, which libevent would take for a
 * forgery. We don't need that protection: whoever answers must show a certificate for the name. */
static const struct {
	const char *name, *value;
} dns_options[] = {{"randomize-case:", "0"}, {"timeout:", "1.5"}, {"attempts:", "4"}};

struct family {
	size_t n;
	char address[RESOLVER_ADDRESSES_MAX][RESOLVER_ADDRESS_MAX];
	struct evdns_request *request; /* pending */
	bool answered;
};

struct resolver {
	struct event_base *base;
	resolver_done *done; /* NULL once called or cancelled */
	void *owner;
	char *host;
	struct resolver_files files;

	struct evdns_base *dns;
	struct event *work;     /* the next step */
	struct event *deadline; /* of the whole question */
	struct event *late;     /* of the slower record type */
	bool asked;
	struct family family[FAMILIES];
	const char *why;
};

static const int family_number[FAMILIES] = {AF_INET, AF_INET6};
static const size_t family_size[FAMILIES] = {sizeof(struct in_addr), sizeof(struct in6_addr)};

static void destroy(struct resolver *r)
{
	event_free(r->work);
	event_free(r->deadline);
	event_free(r->late);
	if (r->dns)
		evdns_base_free(r->dns, 0);
	free((char *)r->files.resolv_conf);
	free((char *)r->files.hosts);
	free(r->host);
	free(r);
}

static bool pending(const struct resolver *r)
{
	return r->family[0].request || r->family[1].request;
}

/* Adds a numeric address, once. */
static void add(struct family *f, const char *address)
{
	for (size_t i = 0; i < f->n; i++) {
		if (strcmp(f->address[i], address) == 0)
			return;
	}
	if (f->n < RESOLVER_ADDRESSES_MAX)
		snprintf(f->address[f->n++], RESOLVER_ADDRESS_MAX, "%s", address);
}

static void add_binary(struct family *f, int number, const void *binary)
{
	char text[RESOLVER_ADDRESS_MAX];

	if (evutil_inet_ntop(number, binary, text, sizeof(text)))
		add(f, text);
}

/* false when the text is no address of either family. */
static bool add_numeric(struct resolver *r, const char *text)
{
	unsigned char binary[sizeof(struct in6_addr)];

	for (int i = 0; i < FAMILIES; i++) {
		if (evutil_inet_pton(family_number[i], text, binary) == 1) {
			add_binary(&r->family[i], family_number[i],
				   binary); /* in its canonical form */
			return true;
		}
	}
	return false;
}

/* localhost and all names below it never leave the machine (RFC 6761, 6.3). */
static bool is_localhost(const char *host)
{
	static const char name[] = "localhost";
	size_t n = strlen(host), m = sizeof(name) - 1;

	if (n && host[n - 1] == '.')
		n--;
	return n >= m && strncasecmp(host + n - m, name, m) == 0 &&
	       (n == m || host[n - m - 1] == '.');
}

/* One line of a hosts file: address, names, comment. */
static void read_hosts_line(struct resolver *r, char *line)
{
	char *rest = NULL, *address, *name;

	line[strcspn(line, "#\r\n")] = '\0';
	address = strtok_r(line, " \t", &rest);
	while (address && (name = strtok_r(NULL, " \t", &rest))) {
		if (strcasecmp(name, r->host) == 0) {
			add_numeric(r, address);
			return;
		}
	}
}

static void read_hosts(struct resolver *r)
{
	FILE *f = fopen(r->files.hosts, "re");
	char *line = NULL;
	size_t size = 0;

	if (!f)
		return;
	while (getline(&line, &size, f) >= 0)
		read_hosts_line(r, line);
	free(line);
	fclose(f);
}

static bool found(const struct resolver *r)
{
	return r->family[0].n || r->family[1].n;
}

static void cancel_pending(struct resolver *r)
{
	for (int i = 0; i < FAMILIES; i++) {
		if (r->family[i].request)
			evdns_cancel_request(r->dns, r->family[i].request);
	}
}

static void interleave(const struct resolver *r, struct resolver_answer *answer)
{
	for (size_t i = 0; i < RESOLVER_ADDRESSES_MAX; i++) {
		for (int k = 0; k < FAMILIES; k++) {
			if (i < r->family[k].n && answer->n < RESOLVER_ADDRESSES_MAX)
				memcpy(answer->address[answer->n++], r->family[k].address[i],
				       RESOLVER_ADDRESS_MAX);
		}
	}
}

/* The owner is done with it. It lives on, unseen, while libevent owes it an answer. */
static void let_go(struct resolver *r)
{
	r->done = NULL;
	event_del(r->deadline);
	event_del(r->late);
	if (pending(r))
		cancel_pending(r);
	else
		destroy(r);
}

/* Tells the owner, as the last act: from within, it may do whatever it likes. */
static void finish(struct resolver *r)
{
	struct resolver_answer answer = {.why = r->why};
	resolver_done *done = r->done;
	void *owner = r->owner;

	interleave(r, &answer);
	let_go(r);
	done(owner, &answer);
}

static void fail(struct resolver *r, const char *why)
{
	r->why = why;
	finish(r);
}

static const char *dns_phrase(int result)
{
	switch (result) {
	case DNS_ERR_NOTEXIST:
	case DNS_ERR_NODATA:
		return "the name has no address";
	case DNS_ERR_TIMEOUT:
		return "no name server answered in time";
	case DNS_ERR_SERVERFAILED:
		return "the name server failed";
	case DNS_ERR_REFUSED:
		return "the name server refused to answer";
	default:
		return "the name could not be looked up";
	}
}

/* Next to be told, if still wanted; else gone as soon as nothing is pending. Never within
 * libevent's callback, which needs the DNS client until it has returned. */
static void go_on(struct resolver *r)
{
	timer_next_turn(r->work);
}

static void on_records(struct resolver *r, int which, int result, int count, const void *records)
{
	struct family *f = &r->family[which];

	f->request = NULL;
	f->answered = true;
	for (int i = 0; result == DNS_ERR_NONE && i < count; i++)
		add_binary(f, family_number[which],
			   (const char *)records + (size_t)i * family_size[which]);
	if (result != DNS_ERR_NONE && result != DNS_ERR_CANCEL && !r->why)
		r->why = dns_phrase(result);
	if (!pending(r))
		go_on(r);
	else if (r->done && f->n)
		timer_start(r->late, LATE_MS);
}

static void on_a(int result, char type, int count, int ttl, void *records, void *user)
{
	(void)type, (void)ttl;
	on_records(user, 0, result, count, records);
}

static void on_aaaa(int result, char type, int count, int ttl, void *records, void *user)
{
	(void)type, (void)ttl;
	on_records(user, 1, result, count, records);
}

static void ask_dns(struct resolver *r)
{
	r->dns = evdns_base_new(r->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	if (!r->dns) {
		fail(r, "no memory");
		return;
	}
	/* Without a readable file it is one name server on this machine, as for the C library. */
	evdns_base_resolv_conf_parse(r->dns, DNS_OPTIONS_ALL & ~DNS_OPTION_HOSTSFILE,
				     r->files.resolv_conf);
	for (size_t i = 0; i < sizeof(dns_options) / sizeof(dns_options[0]); i++)
		evdns_base_set_option(r->dns, dns_options[i].name, dns_options[i].value);
	if (evdns_base_count_nameservers(r->dns) == 0) {
		fail(r, "there is no name server");
		return;
	}
	r->asked = true;
	r->family[0].request = evdns_base_resolve_ipv4(r->dns, r->host, 0, on_a, r);
	r->family[1].request = evdns_base_resolve_ipv6(r->dns, r->host, 0, on_aaaa, r);
	if (!pending(r))
		fail(r, "the name can't be asked for");
}

static void on_work(evutil_socket_t fd, short what, void *user)
{
	struct resolver *r = user;

	(void)fd, (void)what;
	if (!r->done) {
		destroy(r);
		return;
	}
	if (!r->asked && !add_numeric(r, r->host)) {
		if (is_localhost(r->host)) {
			add_numeric(r, "127.0.0.1");
			add_numeric(r, "::1");
		} else {
			read_hosts(r);
		}
	}
	if (r->asked || found(r))
		finish(r);
	else
		ask_dns(r);
}

static void on_late(evutil_socket_t fd, short what, void *user)
{
	(void)fd, (void)what;
	finish(user);
}

static void on_deadline(evutil_socket_t fd, short what, void *user)
{
	(void)fd, (void)what;
	fail(user, "no name server answered in time");
}

/* libevent would write to stderr by itself. */
static void on_log(int is_warning, const char *text)
{
	(void)is_warning;
	log_debug("resolver: %s", text);
}

struct resolver *resolver_ask_with(struct event_base *base, const struct resolver_files *files,
				   const char *host, int timeout_ms, resolver_done *done,
				   void *owner)
{
	struct resolver *r = mem_zalloc(sizeof(*r));

	evdns_set_log_fn(on_log);
	*r = (struct resolver){
		.base = base,
		.done = done,
		.owner = owner,
		.host = mem_strdup(host),
		.files = {mem_strdup(files->resolv_conf), mem_strdup(files->hosts)},
		.work = event_new(base, -1, 0, on_work, r),
		.deadline = event_new(base, -1, 0, on_deadline, r),
		.late = event_new(base, -1, 0, on_late, r),
	};
	timer_start(r->deadline, timeout_ms);
	go_on(r);
	return r;
}

struct resolver *resolver_ask(struct event_base *base, const char *host, int timeout_ms,
			      resolver_done *done, void *owner)
{
	static const struct resolver_files system_files = {"/etc/resolv.conf", "/etc/hosts"};

	return resolver_ask_with(base, &system_files, host, timeout_ms, done, owner);
}

void resolver_cancel(struct resolver *r)
{
	let_go(r);
}
