/* The configuration without its daemon: addresses, INI text, key files, the environment, and the
 * struct that comes out. What a person sees of it (texts, exit status) is in
 * tests/daemon/test_config.py. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "config/config.h"
#include "config/environment.h"
#include "config/inifile.h"
#include "config/keyfile.h"
#include "config/load.h"
#include "base/secret.h"
#include "config/settings_table.h"
#include "transport/token_client.h"
#include "config/url.h"

/* ---- url ---- */

static void urls_taken_apart(void **state)
{
	static const struct {
		const char *in, *text, *host, *prefix;
		unsigned port;
		bool tls;
	} rows[] = {
		{"https://api-eu-2.hpkv.io", "https://api-eu-2.hpkv.io", "api-eu-2.hpkv.io", "",
		 443, true},
		{"wss://h/ws", "https://h", "h", "", 443, true},
		{"WSS://h/ws/", "https://h", "h", "", 443, true},
		{"https://h/", "https://h", "h", "", 443, true},
		{"https://h//ws//", "https://h", "h", "", 443, true},
		{"https://h:8443/a/b/ws", "https://h:8443/a/b", "h", "/a/b", 8443, true},
		{"https://h:443/news", "https://h/news", "h", "/news", 443, true},
		{"https://h/ws/ws", "https://h/ws", "h", "/ws", 443, true},
		{"https://h/aws", "https://h/aws", "h", "/aws", 443, true},
		{"wss://[2001:db8::1]:444/ws", "https://[2001:db8::1]:444", "2001:db8::1", "", 444,
		 true},
		{"ws://[::1]:444/", "http://[::1]:444", "::1", "", 444, false},
		{"http://localhost", "http://localhost", "localhost", "", 80, false},
		{"ws://127.1.2.3:1234/ws", "http://127.1.2.3:1234", "127.1.2.3", "", 1234, false},
		{"ws://[::1]:80", "http://[::1]", "::1", "", 80, false},
		{"http://LocalHost:443", "http://LocalHost:443", "LocalHost", "", 443, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct url url;
		const char *why;
		if (url_parse(rows[i].in, &url, &why) < 0)
			fail_msg("%s: %s", rows[i].in, why);
		assert_string_equal(url.text, rows[i].text);
		assert_string_equal(url.host, rows[i].host);
		assert_string_equal(url.path_prefix, rows[i].prefix);
		assert_int_equal(url.port, rows[i].port);
		assert_int_equal(url.tls, rows[i].tls);
		url_fini(&url);
	}
}

static void urls_refused(void **state)
{
	static const char *const rows[] = {
		"",
		"api-eu-2.hpkv.io",
		"ftp://h",
		"https://",
		"https:///ws",
		"https://user@h",
		"https://user:pass@h",
		"https://@h",
		"https://h?apiKey=SECRET",
		"https://h/ws?",
		"https://h/#x",
		"https://h:0",
		"https://h:65536",
		"https://h:99999999999",
		"https://h:x",
		"https://h:-1",
		"https://a b",
		"https://h\n",
		"https://a..b",
		"https://.a",
		"https://-a",
		"https://a%2eb",
		"https://h\xc3\xa4",
		"https://[::1",
		"https://[::g]",
		"https://[v1.x]",
		"https://a,b",
		"http://h",
		"ws://10.0.0.1",
		"http://127.0.0.1.evil.test",
		"http://localhost.evil.test",
		"http://[::2]",
		"http://128.0.0.1",
		"http://0x7f.1",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct url url = {0};
		const char *why = NULL;
		if (url_parse(rows[i], &url, &why) != -EINVAL)
			fail_msg("%s was accepted", rows[i]);
		assert_non_null(why);
		assert_null(strstr(why, "SECRET"));
		assert_null(url.text);
	}
}

/* ---- inifile ---- */

static void tell_section(void *owner, unsigned line, const char *name)
{
	buf_addf(owner, "%u[%s] ", line, name);
}

static void tell_setting(void *owner, unsigned line, const char *name, const char *value)
{
	buf_addf(owner, "%u%s=%s| ", line, name, value);
}

static void tell_fault(void *owner, unsigned line, const char *what)
{
	(void)what;
	buf_addf(owner, "%u! ", line);
}

static const struct inifile_ops tell = {
	.section = tell_section, .setting = tell_setting, .fault = tell_fault};

static void check_ini(struct span text, const char *want)
{
	struct buf b = {0};
	struct span copy = copy_of(text);

	assert_int_equal(inifile_parse(copy, &tell, &b), 0);
	assert_span(buf_span(&b), want);
	buf_release(&b);
	free_copy(copy);
}

static void ini_lines(void **state)
{
	(void)state;
	check_ini(SPAN(""), "");
	check_ini(SPAN("\n"), "");
	check_ini(SPAN("a=1"), "1a=1| ");
	check_ini(SPAN("a = 1\r\n"), "1a=1| ");
	check_ini(SPAN("a : 1\nb=c:d\n"), "1! 2b=c:d| ");
	check_ini(SPAN("a ="), "1a=| ");
	check_ini(SPAN("a = b = c"), "1a=b = c| ");
	check_ini(SPAN("\xef\xbb\xbf[s]\na=1"), "1[s] 2a=1| ");
	check_ini(SPAN("[s]\n\n; x\n# y\n \t;z\na=1 ; x ; y\nb=1;x\n[t]"),
		  "1[s] 6a=1| 7b=1;x| 8[t] ");
	check_ini(SPAN("a=\xc3\xa4"), "1a=\xc3\xa4| ");
}

/* Texts that inih by itself would glue, cut or drop. */
static void ini_faults(void **state)
{
	(void)state;
	check_ini(SPAN("a=1\n  b=2\n\tc\n"), "1a=1| 2b=2| 3! ");
	check_ini(SPAN("x\ny\na=1\nz"), "1! 2! 3a=1| 4! ");
	check_ini(SPAN("=1\na=1"), "1! 2a=1| ");
	check_ini(SPAN("[s\n[s] a=1\n[]\n[s] ; fine"), "1! 2! 3[] 4[s] ");
	check_ini(SPAN("a=\0b\nc=1"), "1! 2c=1| ");
	check_ini(SPAN("a=\x1b[0m"), "1! ");
	check_ini(SPAN("a=\xff"), "1! ");
	check_ini(SPAN("a=\xc3"), "1! ");
	check_ini(SPAN("a=\xed\xa0\x80"), "1! ");
	check_ini(SPAN("a=\xc0\xaf"), "1! ");
	check_ini(SPAN("; \xff\x01 in a comment\na=1"), "2a=1| ");
	check_ini(SPAN("a=1\rb=2"), "1! ");
}

static void ini_long_lines(void **state)
{
	static const size_t lengths[] = {190, 195, 196, 197, 198,
					 199, 200, 201, 400, INIFILE_LINE_MAX - 2};
	static char line[2 * INIFILE_LINE_MAX], want[2 * INIFILE_LINE_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(lengths); i++) {
		snprintf(line, sizeof(line), "a=%0*d\nb=1", (int)lengths[i], 7);
		snprintf(want, sizeof(want), "1a=%0*d| 2b=1| ", (int)lengths[i], 7);
		check_ini(span_of(line), want);
	}
	snprintf(line, sizeof(line), "a=%0*d\nb=1", INIFILE_LINE_MAX - 1, 7);
	check_ini(span_of(line), "1! 2b=1| ");
	snprintf(line, sizeof(line), "a=1 ;%0*d\nb=1", INIFILE_LINE_MAX, 7);
	check_ini(span_of(line), "1a=1| 2b=1| ");
}

/* ---- files ---- */

static char dir[] = "/tmp/hpkvd-config.XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int remove_dir(void **state)
{
	static const char *const names[] = {"key", "api-key", "c.conf", "fifo"};

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++)
		unlink(names[i]);
	return chdir("/") == 0 && rmdir(dir) == 0 ? 0 : -1;
}

static void write_file(const char *name, struct span content, mode_t mode)
{
	unlink(name); /* the one before may not be writable */
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content.p, content.n), content.n);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void keys(void **state)
{
	static char longest[KEYFILE_KEY_MAX + 2];
	const struct {
		struct span content;
		mode_t mode;
		int result;
		const char *key;
	} rows[] = {
		{SPAN("k-1"), 0600, 0, "k-1"},
		{SPAN("k-1\n"), 0400, 0, "k-1"},
		{SPAN("k-1 \t\r\n\n"), 0640, 0, "k-1"},
		{{longest, KEYFILE_KEY_MAX}, 0440, 0, longest},
		{{longest, KEYFILE_KEY_MAX + 1}, 0600, -EBADMSG, NULL},
		{SPAN(""), 0600, -EBADMSG, NULL},
		{SPAN("\n"), 0600, -EBADMSG, NULL},
		{SPAN("k 1"), 0600, -EBADMSG, NULL},
		{SPAN(" k1"), 0600, -EBADMSG, NULL},
		{SPAN("k\n1"), 0600, -EBADMSG, NULL},
		{SPAN("k\0001"), 0600, -EBADMSG, NULL},
		{SPAN("k\xc3\xa4"), 0600, -EBADMSG, NULL},
		{SPAN("k\x7f"), 0600, -EBADMSG, NULL},
		{SPAN("k-1"), 0604, -EACCES, NULL},
		{SPAN("k-1"), 0602, -EACCES, NULL},
		{SPAN("k-1"), 0601, -EACCES, NULL},
		{SPAN("k-1"), 0620, -EACCES, NULL},
	};

	(void)state;
	memset(longest, 'k', KEYFILE_KEY_MAX + 1);
	for (size_t i = 0; i < COUNT(rows); i++) {
		char *key = NULL;
		const char *why = NULL;
		write_file("key", rows[i].content, rows[i].mode);
		int result = keyfile_read("key", keyfile_fault, &key, &why);
		if (result != rows[i].result)
			fail_msg("row %zu: %d (%s)", i, result, why ? why : "");
		if (rows[i].key) {
			assert_int_equal(strlen(key), strnlen(rows[i].key, KEYFILE_KEY_MAX));
			assert_memory_equal(key, rows[i].key, strlen(key));
		} else {
			assert_non_null(why);
		}
		secret_free(&key);
	}
}

static void keys_that_are_no_files(void **state)
{
	char *key;
	const char *why;

	(void)state;
	assert_int_equal(keyfile_read("absent", keyfile_fault, &key, &why), -ENOENT);
	assert_int_equal(keyfile_read(".", keyfile_fault, &key, &why), -EISDIR);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(keyfile_read("fifo", keyfile_fault, &key, &why),
			 -EINVAL); /* at once, without a writer */
	assert_int_equal(keyfile_read("/dev/null", keyfile_fault, &key, &why), -EINVAL);
}

/* ---- loading ---- */

/* Loads text as a file; the number of faults, or -1 for success with *config set. */
static int load(const char *text, const struct config_environment *environment,
		struct config **config)
{
	struct config_source source = {
		.path = "c.conf", .required = true, .environment = environment};
	struct config_report report = {0};

	write_file("c.conf", span_of(text), 0644);
	int error = config_load(&source, config, &report);
	int n = (int)report.n;
	for (size_t i = 0; error == 0 && i < report.n; i++)
		print_message("# %s\n", report.text[i]);
	config_report_free(&report);
	assert_int_equal(error, n ? -EINVAL : 0);
	return error ? n : -1;
}

static void defaults(void **state)
{
	struct config *c;

	(void)state;
	write_file("api-key", SPAN("the-key\n"), 0600);
	assert_int_equal(load("[upstream]\nurl=https://h/p/ws\n", NULL, &c), -1);
	assert_string_equal(c->upstream.url.text, "https://h/p");
	assert_string_equal(c->upstream.api_key, "the-key");
	assert_non_null(strstr(c->upstream.api_key_source, "api-key"));
	assert_null(c->upstream.ca_file);
	assert_string_equal(c->upstream.access_pattern, ".*");
	assert_int_equal(c->upstream.subscribe_fields,
			 TOKEN_CLIENT_SUBSCRIBE_KEYS | TOKEN_CLIENT_SUBSCRIBE_PATTERNS);
	assert_int_equal(c->upstream.rate_limit, 0);
	assert_int_equal(c->upstream.max_in_flight, 256);
	assert_int_equal(c->upstream.connect_timeout_ms, 5000);
	assert_int_equal(c->upstream.request_timeout_ms, 10000);
	assert_int_equal(c->upstream.keepalive_ms, 20000);
	assert_int_equal(c->upstream.backoff_min_ms, 250);
	assert_int_equal(c->upstream.backoff_max_ms, 30000);
	assert_int_equal(c->upstream.token_lifetime_ms, 7200000);
	assert_int_equal(c->upstream.subscribe_batch_ms, 10);
	assert_string_equal(c->listen.socket, "/run/hpkvd/hpkvd.sock");
	assert_int_equal(c->listen.mode, 0660);
	assert_true(c->listen.group == CONFIG_NO_GROUP);
	assert_int_equal(c->listen.max_clients, 10000);
	assert_int_equal(c->listen.max_line, 65536);
	assert_int_equal(c->listen.max_pipeline, 1024);
	assert_int_equal(c->listen.output_soft, 256 * 1024);
	assert_int_equal(c->listen.output_hard, 8 * 1024 * 1024);
	assert_int_equal(c->upstream.max_frame, 64 << 10);
	assert_int_equal(c->upstream.max_message, 16 << 20);
	assert_int_equal(c->upstream.max_held, 32 << 20);
	assert_int_equal(c->listen.max_queued, 64 << 20);
	assert_int_equal(c->listen.max_client_queued, 1 << 20);
	assert_int_equal(c->listen.max_subscriptions, 4 << 20);
	assert_int_equal(c->listen.max_client_subscriptions, 1 << 17);
	assert_int_equal(c->listen.max_topics, 1 << 18);
	assert_int_equal(c->listen.subscription_memory, 1 << 30);
	assert_int_equal(c->listen.max_token_requests, 1024);
	assert_null(c->metrics.path);
	assert_null(c->metrics.address);
	assert_int_equal(c->log.level, LOG_LEVEL_INFO);
	config_free(c);
}

static void values(void **state)
{
	struct config *c;

	(void)state;
	write_file("key", SPAN("other\n"), 0600);
	assert_int_equal(
		load("[upstream]\nurl=ws://[::1]:9\napi_key_file=key\naccess_pattern=\n"
		     "subscribe_field=subscribeKeys\nrate_limit=10\nmax_in_flight=1\n"
		     "max_frame=32M\nmax_message=256M\nmax_held=1M\n"
		     "connect_timeout=1500ms\nrequest_timeout=10m\nkeepalive=1h\nbackoff_min=2s\n"
		     "backoff_max=2s\ntoken_lifetime=168h\nsubscribe_batch=0\n"
		     "[listen]\nsocket=/tmp/"
		     "s\nmode=777\ngroup=12345678\nmax_clients=1\nmax_line=1K\n"
		     "max_pipeline=1\noutput_soft=4096\noutput_hard=1M\nmax_queued=64K\n"
		     "max_client_queued=4K\nmax_subscriptions=1\nmax_client_subscriptions=2\n"
		     "max_topics=3\nsubscription_memory=65536M\nmax_token_requests=4\n[metrics]"
		     "\nlisten=[::1]:"
		     "9464\n"
		     "[log]\nlevel=debug\n",
		     NULL, &c),
		-1);
	assert_string_equal(c->upstream.url.host, "::1");
	assert_string_equal(c->upstream.api_key, "other");
	assert_string_equal(c->upstream.access_pattern, "");
	assert_int_equal(c->upstream.subscribe_fields, TOKEN_CLIENT_SUBSCRIBE_KEYS);
	assert_int_equal(c->upstream.rate_limit, 10);
	assert_int_equal(c->upstream.connect_timeout_ms, 1500);
	assert_int_equal(c->upstream.request_timeout_ms, 600000);
	assert_int_equal(c->upstream.keepalive_ms, 3600000);
	assert_int_equal(c->upstream.backoff_min_ms, 2000);
	assert_int_equal(c->upstream.token_lifetime_ms, INT64_C(168) * 3600000);
	assert_int_equal(c->upstream.subscribe_batch_ms, 0);
	assert_string_equal(c->listen.socket, "/tmp/s");
	assert_int_equal(c->listen.mode, 0777);
	assert_int_equal(c->listen.group, 12345678);
	assert_int_equal(c->listen.max_line, 1024);
	assert_int_equal(c->listen.output_soft, 4096);
	assert_int_equal(c->listen.output_hard, 1024 * 1024);
	assert_int_equal(c->upstream.max_frame, 32 << 20);
	assert_int_equal(c->upstream.max_message, 256 << 20);
	assert_int_equal(c->upstream.max_held, 1 << 20);
	assert_int_equal(c->listen.max_queued, 1 << 16);
	assert_int_equal(c->listen.max_client_queued, 1 << 12);
	assert_int_equal(c->listen.max_subscriptions, 1);
	assert_int_equal(c->listen.max_client_subscriptions, 2);
	assert_int_equal(c->listen.max_topics, 3);
	assert_true(c->listen.subscription_memory == UINT64_C(1) << 36);
	assert_int_equal(c->listen.max_token_requests, 4);
	assert_string_equal(c->metrics.address, "::1");
	assert_int_equal(c->metrics.port, 9464);
	assert_null(c->metrics.path);
	assert_int_equal(c->log.level, LOG_LEVEL_DEBUG);
	config_free(c);
}

/* Each row against the first: the differences, and whether they take another connection. */
static void what_a_reload_changes(void **state)
{
	static const struct {
		const char *upstream, *rest, *key, *names;
		bool another;
	} rows[] = {
		{"url=https://h\n", "", "key", "", false},
		{"url=wss://h:443/ws\nrate_limit=0\n", "", "key", "", false},
		{"url=https://h/p\n", "", "key", " [upstream] url", true},
		{"url=https://h\n", "", "other", " [upstream] api_key_file", true},
		{"url=https://h\naccess_pattern=a\n", "", "key", " [upstream] access_pattern",
		 true},
		{"url=https://h\nsubscribe_field=subscribeKeys\n", "", "key",
		 " [upstream] subscribe_field", true},
		{"url=https://h\nkeepalive=1s\nrate_limit=5\n",
		 "[listen]\nmode=0600\ngroup=7\nmax_line=1K\nsocket=/s\n[log]\nlevel=error\n",
		 "key",
		 " [upstream] rate_limit, [upstream] keepalive, [listen] socket, [listen] mode,"
		 " [listen] group, [listen] max_line, [log] level",
		 false},
		{"url=https://h\n", "[metrics]\nlisten=localhost:1\n", "key", " [metrics] listen",
		 false},
		{"url=https://h\n", "[metrics]\nlisten=/m\n", "key", " [metrics] listen", false},
	};
	struct config *first = NULL;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct config *c;
		struct buf text = {0}, names = {0};
		write_file("api-key", (struct span){rows[i].key, strlen(rows[i].key)}, 0600);
		buf_addf(&text, "[upstream]\n%s%s%c", rows[i].upstream, rows[i].rest, '\0');
		assert_int_equal(load(buf_span(&text).p, NULL, &c), -1);
		if (!first)
			assert_int_equal(load(buf_span(&text).p, NULL, &first), -1);
		assert_int_equal(setting_changes(first, c, &names), rows[i].another);
		buf_addf(&names, "%c", '\0');
		assert_string_equal(buf_span(&names).p, rows[i].names);
		buf_release(&names);
		buf_release(&text);
		config_free(c);
	}
	config_free(first);
}

static void check_metrics(const char *value, const char *address, const char *path)
{
	char file[200];
	struct config *c;

	snprintf(file, sizeof(file), "[upstream]\nurl=https://h\n[metrics]\nlisten=%s\n", value);
	assert_int_equal(load(file, NULL, &c), -1);
	if (address)
		assert_string_equal(c->metrics.address, address);
	else
		assert_null(c->metrics.address);
	if (path)
		assert_string_equal(c->metrics.path, path);
	else
		assert_null(c->metrics.path);
	config_free(c);
}

static void where_metrics_are_served(void **state)
{
	(void)state;
	check_metrics("", NULL, NULL);
	check_metrics("localhost:9464", "127.0.0.1", NULL);
	check_metrics("127.1.2.3:1", "127.1.2.3", NULL);
	check_metrics("/run/m.sock", NULL, "/run/m.sock");
}

static void numbers_refused(void **state)
{
	static const char *const rows[] = {
		"[upstream] connect_timeout 5",
		"[upstream] connect_timeout 5 s",
		"[upstream] connect_timeout 5S",
		"[upstream] connect_timeout -5s",
		"[upstream] connect_timeout +5s",
		"[upstream] connect_timeout 5.5s",
		"[upstream] connect_timeout s",
		"[upstream] connect_timeout 5sx",
		"[upstream] connect_timeout 0x5s",
		"[upstream] connect_timeout 9223372036854775807h",
		"[upstream] connect_timeout 0",
		"[upstream] connect_timeout 5124095576030432h",
		"[upstream] connect_timeout 11m",
		"[upstream] connect_timeout 18446744073709551617s",
		"[upstream] max_in_flight 0",
		"[upstream] max_in_flight 65536",
		"[upstream] max_in_flight 1K",
		"[upstream] max_in_flight 4294967297",
		"[listen] max_line 64k",
		"[listen] max_line 1023",
		"[listen] max_line 64KB",
		"[listen] max_line 18014398509481985K",
		"[listen] mode 1777",
		"[listen] mode rw",
		"[listen] mode 0x1ff",
		"[upstream] subscribe_field Both",
		"[log] level INFO",
		"[log] level 3",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char section[16], name[32], value[64], text[200];
		struct config *c = NULL;
		assert_int_equal(sscanf(rows[i], "[%15[^]]] %31s %63[^\n]", section, name, value),
				 3);
		snprintf(text, sizeof(text), "[upstream]\nurl=https://h\n[%s]\n%s = %s\n", section,
			 name, value);
		if (load(text, NULL, &c) != 1)
			fail_msg("%s", rows[i]);
		assert_null(c);
	}
}

static void faults_are_capped(void **state)
{
	struct buf b = {0};
	struct config *c;

	(void)state;
	for (int i = 0; i < 1000; i++)
		buf_addf(&b, "rubbish\n");
	buf_add(&b, "", 1);
	assert_int_equal(load(buf_span(&b).p, NULL, &c), 51);
	buf_release(&b);
}

/* The block of the environment must not hold the key any more. */
static void environment_is_taken_once(void **state)
{
	static char key_entry[] = "HPKV_API_KEY=SECRET-1", twin[] = "HPKV_API_KEY=SECRET-2",
		    url_entry[] = "HPKV_BASE_URL=wss://h/ws", other[] = "HPKV_API_KEY_NOT=stays",
		    empty[] = "HPKVD_CONFIG=";
	static char *block[] = {key_entry, twin, url_entry, other, empty, NULL};
	char **kept = environ;
	struct config *c;

	(void)state;
	environ = block;
	struct config_environment *e = config_environment_take();
	assert_string_equal(e->api_key, "SECRET-1");
	assert_string_equal(e->base_url, "wss://h/ws");
	assert_null(e->config_path);
	assert_null(e->credentials_directory);
	assert_null(getenv("HPKV_API_KEY"));
	assert_null(getenv("HPKV_BASE_URL"));
	assert_string_equal(getenv("HPKV_API_KEY_NOT"), "stays");
	for (size_t i = 13; i < sizeof(key_entry); i++)
		assert_int_equal(key_entry[i] | twin[i], 0);
	environ = kept;

	unlink("api-key");
	for (int round = 0; round < 2; round++) { /* a reload finds them again */
		assert_int_equal(load("", e, &c), -1);
		assert_string_equal(c->upstream.url.text, "https://h");
		assert_string_equal(c->upstream.api_key, "SECRET-1");
		assert_ptr_equal(c->upstream.api_key, e->api_key); /* not one more copy */
		assert_string_equal(c->upstream.api_key_source, "HPKV_API_KEY");
		config_free(c);
	}
	write_file("api-key", SPAN("from-file\n"), 0600);
	assert_int_equal(load("[upstream]\nurl=https://file\n", e, &c), -1);
	assert_string_equal(c->upstream.url.text, "https://file");
	assert_string_equal(c->upstream.api_key, "from-file");
	assert_non_null(strstr(c->upstream.api_key_source, "api-key"));
	config_free(c);
	config_environment_free(e);
}

/* ---- files ---- */

static void a_file_is_told_from_none(void **state)
{
	struct config_environment environment = {.base_url = (char *)"https://h",
						 .api_key = secret_dup("key")};
	struct config_source source = {.path = "no-such-file.conf", .environment = &environment};
	struct config_report report = {0};
	char path[] = "config-XXXXXX";
	struct config *config;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(config_load(&source, &config, &report), 0);
	assert_false(config->has_file);
	config_free(config);
	source.path = path;
	assert_int_equal(config_load(&source, &config, &report), 0);
	assert_true(config->has_file);
	for (int i = 0; i < CONFIG_EXPOSED_N; i++)
		assert_null(config->exposed[i]);
	config_free(config);
	assert_int_equal(fchmod(fd, 0602), 0);
	assert_int_equal(config_load(&source, &config, &report), 0);
	assert_string_equal(config->exposed[CONFIG_WRITABLE], path);
	config_free(config);
	close(fd);
	unlink(path);
	secret_free(&environment.api_key);
}

static void a_key_that_stays_is_held_once(void **state)
{
	struct config *before, *now;

	(void)state;
	write_file("api-key", SPAN("the-key\n"), 0600);
	assert_int_equal(load("[upstream]\nurl=https://h\n", NULL, &before), -1);
	assert_int_equal(load("[upstream]\nurl=https://other\n", NULL, &now), -1);
	assert_ptr_not_equal(now->upstream.api_key, before->upstream.api_key);
	config_share_key(now, before);
	assert_ptr_equal(now->upstream.api_key, before->upstream.api_key);
	config_free(before);
	assert_string_equal(now->upstream.api_key, "the-key");

	before = now;
	write_file("api-key", SPAN("another\n"), 0600);
	assert_int_equal(load("[upstream]\nurl=https://h\n", NULL, &now), -1);
	config_share_key(now, before);
	assert_string_equal(now->upstream.api_key, "another");
	assert_string_equal(before->upstream.api_key, "the-key");
	config_free(before);
	config_free(now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_is_told_from_none),
		cmocka_unit_test(a_key_that_stays_is_held_once),
		cmocka_unit_test(urls_taken_apart),
		cmocka_unit_test(urls_refused),
		cmocka_unit_test(ini_lines),
		cmocka_unit_test(ini_faults),
		cmocka_unit_test(ini_long_lines),
		cmocka_unit_test(keys),
		cmocka_unit_test(keys_that_are_no_files),
		cmocka_unit_test(defaults),
		cmocka_unit_test(values),
		cmocka_unit_test(what_a_reload_changes),
		cmocka_unit_test(where_metrics_are_served),
		cmocka_unit_test(numbers_refused),
		cmocka_unit_test(faults_are_capped),
		cmocka_unit_test(environment_is_taken_once),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
