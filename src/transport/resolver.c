/* One question goes through these steps, each in a turn of the loop of its own so that done() is
 * never called from within resolver_ask():
 *
 *   look at the name itself and into the hosts file; if that does not answer, ask for A and AAAA
 * records at once; when both are answered, or one is and the other is late, or the time is up: tell
 * the owner.
 *
 * c-ares names the sockets that it waits for in on_sockets(), and ares_timeout() the time. It is
 * entered in drive() alone, and the owner is never called from there: what came is told by the
 * event "work", from a fresh stack, where the client can be destroyed.
 *
 * What c-ares does not do in all versions is done here:
 * - It takes no name servers with a scope, nor do newer versions with socket functions. It gets a
 *   stand-in for each, which is exchanged for the real address in these functions.
 * - Of servers that fail (SERVFAIL) or refuse, it says only that none was left. So the response
 *   codes are read as they come, from UDP packets and from the beginning of TCP messages. */
#include "transport/resolver.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <ares.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"

enum {
	/* How long the slower of two record types is waited for. Some servers never answer for
	 * AAAA. A late answer for A mostly means a lost packet, and the query is repeated. */
	LATE_V6_MS = 500,
	LATE_V4_MS = 1500,
	FAMILIES = 2,             /* IPv4 and IPv6, in the order of the answer */
	SERVER_TIMEOUT_MS = 1000, /* for one server, before the next is asked */
	SERVER_TRIES = 4,         /* for each server; the query's own time is mostly up before */
	EDNS_SIZE = 1232,         /* bytes of a UDP answer that no network splits */
	RCODE_AT = 3, /* the byte of a DNS message whose low half is the response code */
	RCODE_SERVFAIL = 2,
	RCODE_NOTIMP = 4,
	RCODE_REFUSED = 5,
	TCP_LENGTH = 2, /* bytes before each message of a TCP stream */
};

struct family {
	size_t n;
	char address[RESOLVER_ADDRESSES_MAX][RESOLVER_ADDRESS_MAX];
	bool pending;
};

/* A socket of c-ares. */
struct dns_socket {
	int fd; /* -1: none */
	bool tcp;
	struct event *event; /* what c-ares wants to know of it; or NULL */
	unsigned char head[TCP_LENGTH + RCODE_AT + 1]; /* TCP: of the message being received */
	size_t head_bytes;                             /* ... bytes received */
	size_t body_left;                              /* ... bytes still to come */
};

/* A name server with a scope, and the address that c-ares gets for it: 100::N, of the block that
 * leads nowhere (RFC 6666). */
struct scoped {
	struct in6_addr stand_in, address;
	unsigned index;
};

struct resolver {
	struct event_base *base;
	resolver_done *done;
	void *owner;
	char *host;
	struct resolver_files files;

	ares_channel channel; /* NULL: DNS is not asked, or not yet */
	struct dns_socket sockets[RESOLVER_SOCKETS_MAX];
	struct scoped scoped[RESOLVER_SERVERS_MAX];
	size_t scoped_n;
	struct event *work;      /* the next step */
	struct event *deadline;  /* of the whole question */
	struct event *late;      /* of the slower record type */
	struct event *dns_timer; /* of c-ares */
	bool library, asked;
	int rcode; /* of the last server that failed or refused; 0: none did */
	struct family family[FAMILIES];
	int status; /* of c-ares: the most informative reason why nothing was found */
	const char *why;
};

static const int family_number[FAMILIES] = {AF_INET, AF_INET6};

static void destroy(struct resolver *r)
{
	r->done = NULL;
	if (r->channel)
		ares_destroy(
			r->channel); /* c-ares calls back from within, and closes its sockets */
	if (r->library)
		ares_library_cleanup();
	event_free(r->work);
	event_free(r->deadline);
	event_free(r->late);
	event_free(r->dns_timer);
	free((char *)r->files.resolv_conf);
	free((char *)r->files.hosts);
	free(r->host);
	free(r);
}

/* ---- addresses ---- */

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

static void add_binary(struct family *f, int number, const void *binary, unsigned scope)
{
	char text[RESOLVER_ADDRESS_MAX], name[IF_NAMESIZE];

	if (!inet_ntop(number, binary, text, INET6_ADDRSTRLEN))
		return;
	size_t n = strlen(text);
	if (scope && if_indextoname(scope, name))
		snprintf(text + n, sizeof(text) - n, "%%%s", name);
	else if (scope)
		snprintf(text + n, sizeof(text) - n, "%%%u", scope);
	add(f, text);
}

/* The interface that a scope names; 0: there is none. */
static unsigned scope_index(const char *name)
{
	char *end;
	unsigned index = if_nametoindex(name);
	unsigned long number = strtoul(name, &end, 10);

	if (!index && *name >= '0' && *name <= '9' && !*end && number <= UINT32_MAX)
		index = (unsigned)number;
	return index;
}

/* Splits "fe80::1%eth0"; without a % the scope is 0. */
static bool parse_v6(const char *text, struct in6_addr *address, unsigned *scope)
{
	char bare[INET6_ADDRSTRLEN];
	size_t n = strcspn(text, "%");

	if (n >= sizeof(bare))
		return false;
	memcpy(bare, text, n);
	bare[n] = '\0';
	*scope = text[n] ? scope_index(text + n + 1) : 0;
	return inet_pton(AF_INET6, bare, address) == 1 && (!text[n] || *scope);
}

/* False when the text is no address of either family. It is added in its canonical form. */
static bool add_numeric(struct resolver *r, const char *text)
{
	struct in_addr v4;
	struct in6_addr v6;
	unsigned scope;

	if (inet_pton(AF_INET, text, &v4) == 1)
		add_binary(&r->family[0], AF_INET, &v4, 0);
	else if (parse_v6(text, &v6, &scope))
		add_binary(&r->family[1], AF_INET6, &v6, scope);
	else
		return false;
	return true;
}

static bool found(const struct resolver *r)
{
	return r->family[0].n || r->family[1].n;
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

/* ---- names that need no name server ---- */

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

/* The same name, except for a dot at the end? */
static bool same_name(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);

	n -= n && a[n - 1] == '.';
	m -= m && b[m - 1] == '.';
	return n == m && strncasecmp(a, b, n) == 0;
}

/* One line of a hosts file: address, names, comment. */
static void read_hosts_line(struct resolver *r, char *line)
{
	char *rest = NULL, *address, *name;

	line[strcspn(line, "#\r\n")] = '\0';
	address = strtok_r(line, " \t", &rest);
	while (address && (name = strtok_r(NULL, " \t", &rest))) {
		if (same_name(name, r->host)) {
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

/* ---- the end of a query ---- */

/* Tells the owner, as the last act: it may do anything from within. */
static void finish(struct resolver *r)
{
	struct resolver_answer answer = {.why = r->why};
	resolver_done *done = r->done;
	void *owner = r->owner;

	interleave(r, &answer);
	destroy(r);
	done(owner, &answer);
}

static void fail(struct resolver *r, const char *why)
{
	r->why = why;
	finish(r);
}

/* A server's response code says more than silence. */
static const char *phrase(const struct resolver *r, int status)
{
	switch (status) {
	case ARES_ENOTFOUND:
		return "there is no such name";
	case ARES_ENODATA:
		return "the name has no address";
	case ARES_EBADNAME:
		return "the name is not a valid host name";
	case ARES_EBADRESP:
	case ARES_EFORMERR:
		return "the name server's answer is malformed";
	case ARES_ENOMEM:
		return "no memory";
	case ARES_ESERVFAIL:
	case ARES_ENOTIMP:
		return "the name server failed";
	case ARES_EREFUSED:
		return "the name server refused to answer";
	default:
		break;
	}
	if (r->rcode == RCODE_REFUSED)
		return "the name server refused to answer";
	if (r->rcode)
		return "the name server failed";
	return status == ARES_ETIMEOUT ? "no name server answered in time"
				       : "no name server can be reached";
}

/* Of two reasons, the more informative: no such name, which holds for both record types; then that
 * the query could not be sent; then that there is no record of this type. */
static int rank(int status)
{
	return status == ARES_ENOTFOUND ? 3 : status == ARES_ENODATA ? 1 : status ? 2 : 0;
}

/* ---- c-ares in the loop ---- */

static void set_dns_timer(struct resolver *r)
{
	struct timeval tv;

	if (ares_timeout(r->channel, NULL, &tv))
		event_add(r->dns_timer, &tv);
	else
		event_del(r->dns_timer);
}

/* The next step, from a fresh stack. */
static void go_on(struct resolver *r)
{
	timer_next_turn(r->work);
}

static void drive(struct resolver *r, int readable, int writable)
{
	ares_process_fd(r->channel, readable, writable);
	set_dns_timer(r);
}

static void on_ready(evutil_socket_t fd, short what, void *user)
{
	drive(user, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
}

static void on_dns_timer(evutil_socket_t fd, short what, void *user)
{
	(void)fd, (void)what;
	drive(user, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static struct dns_socket *find_socket(struct resolver *r, int fd)
{
	for (size_t i = 0; i < RESOLVER_SOCKETS_MAX; i++) {
		if (r->sockets[i].fd == fd)
			return &r->sockets[i];
	}
	return NULL;
}

static void unwatch(struct dns_socket *s)
{
	if (s->event)
		event_free(s->event);
	s->event = NULL;
}

static void on_sockets(void *user, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = user;
	struct dns_socket *s = find_socket(r, fd);
	short wanted = (short)((readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));

	if (!s)
		return;
	unwatch(s);
	if (!wanted)
		return;
	s->event = watch_new(r->base, fd, (short)(wanted | EV_PERSIST), on_ready, r);
	/* Without an event the server counts as silent. */
	if (watch_start(s->event) < 0)
		unwatch(s);
}

/* ---- the sockets of c-ares ---- */

static ares_socket_t open_socket(int domain, int type, int protocol, void *user)
{
	struct dns_socket *s = find_socket(user, -1);

	if (!s) {
		errno = EMFILE;
		return ARES_SOCKET_BAD;
	}
	s->fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	s->tcp = type == SOCK_STREAM;
	s->head_bytes = s->body_left = 0;
	return s->fd;
}

static int close_socket(ares_socket_t fd, void *user)
{
	struct dns_socket *s = find_socket(user, fd);

	if (s) {
		unwatch(s);
		s->fd = -1;
	}
	return close(fd);
}

static int connect_socket(ares_socket_t fd, const struct sockaddr *to, ares_socklen_t n, void *user)
{
	const struct resolver *r = user;
	struct sockaddr_in6 v6;

	if (to->sa_family != AF_INET6 || n != sizeof(v6))
		return connect(fd, to, n);
	memcpy(&v6, to, sizeof(v6));
	for (size_t i = 0; i < r->scoped_n; i++) {
		if (IN6_ARE_ADDR_EQUAL(&r->scoped[i].stand_in, &v6.sin6_addr)) {
			v6.sin6_addr = r->scoped[i].address;
			v6.sin6_scope_id = r->scoped[i].index;
			break;
		}
	}
	return connect(fd, (const struct sockaddr *)&v6, sizeof(v6));
}

/* c-ares compares the sender of a packet with the server that it asked. */
static void put_stand_in(const struct resolver *r, struct sockaddr *from)
{
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)from;

	if (!from || from->sa_family != AF_INET6)
		return;
	for (size_t i = 0; i < r->scoped_n; i++) {
		if (IN6_ARE_ADDR_EQUAL(&r->scoped[i].address, &v6->sin6_addr) &&
		    r->scoped[i].index == v6->sin6_scope_id) {
			v6->sin6_addr = r->scoped[i].stand_in;
			v6->sin6_scope_id = 0;
			return;
		}
	}
}

static void note_code(struct resolver *r, unsigned char byte)
{
	int code = byte & 0xf;

	if (code == RCODE_SERVFAIL || code == RCODE_NOTIMP || code == RCODE_REFUSED)
		r->rcode = code;
}

/* Reads the beginning of each message of a TCP stream. */
static void look_at_stream(struct resolver *r, struct dns_socket *s, const unsigned char *p,
			   size_t n)
{
	while (n) {
		if (s->head_bytes < sizeof(s->head)) {
			s->head[s->head_bytes++] = *p++;
			n--;
			if (s->head_bytes < sizeof(s->head))
				continue;
			size_t length = (size_t)s->head[0] << 8 | s->head[1];
			note_code(r, s->head[sizeof(s->head) - 1]);
			s->body_left = length > RCODE_AT ? length - RCODE_AT - 1 : 0;
		}
		size_t skipped = n < s->body_left ? n : s->body_left;
		p += skipped;
		n -= skipped;
		s->body_left -= skipped;
		if (!s->body_left)
			s->head_bytes = 0;
	}
}

static ares_ssize_t receive(ares_socket_t fd, void *p, size_t size, int flags,
			    struct sockaddr *from, ares_socklen_t *from_n, void *user)
{
	struct resolver *r = user;
	struct dns_socket *s = find_socket(r, fd);
	ssize_t n = recvfrom(fd, p, size, flags, from, from_n);

	if (n >= 0)
		put_stand_in(r, from);
	if (s && n > 0 && s->tcp)
		look_at_stream(r, s, p, (size_t)n);
	else if (s && n > RCODE_AT)
		note_code(r, ((unsigned char *)p)[RCODE_AT]);
	return n;
}

static ares_ssize_t send_all(ares_socket_t fd, const struct iovec *parts, int n, void *user)
{
	struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)n};
	struct dns_socket *s = find_socket(user, fd);
	ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);

	/* The error of an earlier packet that was refused. c-ares would take it for this packet's
	 * and not learn of the other's; this packet, sent once more, is refused as well, and the
	 * next read reports both. */
	if (sent < 0 && errno == ECONNREFUSED && s && !s->tcp)
		sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	return sent;
}

/* ---- asking ---- */

static void on_records(struct resolver *r, int which, int status, struct ares_addrinfo *records)
{
	struct family *f = &r->family[which];

	f->pending = false;
	if (!r->done) { /* being destroyed */
		ares_freeaddrinfo(records);
		return;
	}
	for (struct ares_addrinfo_node *a = records ? records->nodes : NULL; a; a = a->ai_next) {
		const struct sockaddr_in *v4 = (const void *)a->ai_addr;
		const struct sockaddr_in6 *v6 = (const void *)a->ai_addr;
		if (a->ai_family != family_number[which])
			continue;
		if (a->ai_family == AF_INET)
			add_binary(f, AF_INET, &v4->sin_addr, 0);
		else
			add_binary(f, AF_INET6, &v6->sin6_addr, v6->sin6_scope_id);
	}
	ares_freeaddrinfo(records);
	if (rank(status) > rank(r->status))
		r->status = status;
	if (!r->family[0].pending && !r->family[1].pending)
		go_on(r);
	else if (f->n)
		timer_start(r->late, which == 0 ? LATE_V6_MS : LATE_V4_MS);
}

static void on_a(void *user, int status, int timeouts, struct ares_addrinfo *records)
{
	(void)timeouts;
	on_records(user, 0, status, records);
}

static void on_aaaa(void *user, int status, int timeouts, struct ares_addrinfo *records)
{
	(void)timeouts;
	on_records(user, 1, status, records);
}

/* The servers of resolv.conf, in the syntax of c-ares. */
struct server_list {
	struct resolver *r;
	struct buf text;
	size_t n;
};

/* address: without brackets; port: ":53", say. */
static void add_server(struct server_list *list, const char *address, const char *port)
{
	struct resolver *r = list->r;
	struct in_addr v4;
	struct in6_addr v6;
	unsigned scope = 0;
	const char *comma = list->n ? "," : "";

	if (list->n == RESOLVER_SERVERS_MAX)
		return;
	if (inet_pton(AF_INET, address, &v4) == 1) {
		buf_addf(&list->text, "%s%s%s", comma, address, port);
	} else if (parse_v6(address, &v6, &scope) && scope) {
		struct scoped *one = &r->scoped[r->scoped_n++];
		*one = (struct scoped){.address = v6, .index = scope};
		one->stand_in.s6_addr[0] = 1;
		one->stand_in.s6_addr[15] = (unsigned char)r->scoped_n;
		buf_addf(&list->text, "%s[100::%x]%s", comma, (unsigned)r->scoped_n, port);
	} else if (parse_v6(address, &v6, &scope)) {
		buf_addf(&list->text, "%s[%s]%s", comma, address, port);
	} else {
		log_debug("resolver: name server %.60s is no address", address);
		return;
	}
	list->n++;
}

/* A port behind an address, or behind one in brackets, is an extension of ours and of c-ares. */
static void read_server(struct server_list *list, char *word)
{
	char *colon = strchr(word, ':'), *bracket = strchr(word, ']');
	char port[8] = ":53";

	if (*word == '[' && bracket) {
		if (bracket[1])
			snprintf(port, sizeof(port), "%.7s", bracket + 1);
		*bracket = '\0';
		word++;
	} else if (colon && !strchr(colon + 1, ':')) {
		snprintf(port, sizeof(port), "%.7s", colon);
		*colon = '\0';
	}
	if (port[0] != ':' || !port[1] || port[1 + strspn(port + 1, "0123456789")])
		return;
	add_server(list, word, port);
}

static void read_servers(struct server_list *list, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL, *rest, *word;
	size_t size = 0;

	while (f && getline(&line, &size, f) >= 0) {
		word = strtok_r(line, " \t\r\n", &rest);
		if (word && strcmp(word, "nameserver") == 0 &&
		    (word = strtok_r(NULL, " \t\r\n", &rest)))
			read_server(list, word);
	}
	free(line);
	if (f)
		fclose(f);
	/* Without any: one name server on this machine, as in the C library. */
	if (!list->n)
		add_server(list, "127.0.0.1", ":53");
	buf_add(&list->text, "", 1);
}

static int set_servers(struct resolver *r)
{
	struct server_list list = {.r = r};

	read_servers(&list, r->files.resolv_conf);
	int status = ares_set_servers_ports_csv(r->channel, buf_span(&list.text).p);
	buf_release(&list.text);
	return status;
}

static int open_channel(struct resolver *r)
{
	static const struct ares_socket_functions functions = {open_socket, close_socket,
							       connect_socket, receive, send_all};
	struct ares_options options = {
		.flags = ARES_FLAG_EDNS,
		.timeout = SERVER_TIMEOUT_MS,
		.tries = SERVER_TRIES,
		.ednspsz = EDNS_SIZE,
		.lookups = (char *)"b", /* DNS alone */
		.sock_state_cb = on_sockets,
		.sock_state_cb_data = r,
		.resolvconf_path = (char *)r->files.resolv_conf, /* for its search list and ndots */
	};
	const int which = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
			  ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB | ARES_OPT_RESOLVCONF;
	int status = ares_library_init(ARES_LIB_INIT_ALL);

	if (status != ARES_SUCCESS)
		return status;
	r->library = true;
	status = ares_init_options(&r->channel, &options, which);
	if (status != ARES_SUCCESS) {
		r->channel = NULL;
		return status;
	}
	/* Newer versions have another function, which older ones lack. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	ares_set_socket_functions(r->channel, &functions, r);
#pragma GCC diagnostic pop
	return set_servers(r);
}

static void ask_dns(struct resolver *r)
{
	static const ares_addrinfo_callback callbacks[FAMILIES] = {on_a, on_aaaa};
	int status = open_channel(r);

	if (status != ARES_SUCCESS) {
		fail(r, status == ARES_ENOMEM ? "no memory"
					      : "the name servers of resolv.conf can't be used");
		return;
	}
	r->asked = true;
	for (int i = 0; i < FAMILIES; i++)
		r->family[i].pending = true;
	for (int i = 0; i < FAMILIES; i++) {
		struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT,
						    .ai_family = family_number[i],
						    .ai_socktype = SOCK_STREAM};
		ares_getaddrinfo(r->channel, r->host, NULL, &hints, callbacks[i], r);
	}
	set_dns_timer(r);
}

/* ---- the steps ---- */

static void on_work(evutil_socket_t fd, short what, void *user)
{
	struct resolver *r = user;

	(void)fd, (void)what;
	if (r->asked) {
		r->why = found(r) ? NULL : phrase(r, r->status);
		finish(r);
		return;
	}
	if (!add_numeric(r, r->host)) {
		if (is_localhost(r->host)) {
			add_numeric(r, "127.0.0.1");
			add_numeric(r, "::1");
		} else {
			read_hosts(r);
		}
	}
	if (found(r))
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
	struct resolver *r = user;

	(void)fd, (void)what;
	if (found(r))
		finish(r);
	else
		fail(r, phrase(r, ARES_ETIMEOUT));
}

struct resolver *resolver_ask_with(struct event_base *base, const struct resolver_files *files,
				   const char *host, int timeout_ms, resolver_done *done,
				   void *owner)
{
	struct resolver *r = mem_zalloc(sizeof(*r));

	*r = (struct resolver){
		.base = base,
		.done = done,
		.owner = owner,
		.host = mem_strdup(host),
		.files = {mem_strdup(files->resolv_conf), mem_strdup(files->hosts)},
		.work = timer_new(base, on_work, r),
		.deadline = timer_new(base, on_deadline, r),
		.late = timer_new(base, on_late, r),
		.dns_timer = timer_new(base, on_dns_timer, r),
	};
	for (size_t i = 0; i < RESOLVER_SOCKETS_MAX; i++)
		r->sockets[i].fd = -1;
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
	destroy(r);
}
