/* mirror: a directory whose files are the records of a glob. live keeps the records, tree the
 * directory. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "commands.h"
#include "base/glob.h"
#include "base/mem.h"
#include "filename.h"
#include "live.h"
#include "visible.h"
#include "tree.h"

enum { OPT_STRIP, OPT_FOLDERS, OPT_MODE, OPT_OWNER, OPT_EXEC, OPT_CHECK, OPT_ONCE };
enum {
	AGAIN_MS = 5000, /* after a failure */
	LOOK_MS = 5000,  /* between looks whether the directory is still there */
	MODE_MOST = 0777,
	MODE_DEFAULT = 0644
};

static const char own_variable[] = "HPKV_DIRECTORY";

struct mirror {
	struct cli *c;
	struct live live;
	struct tree_options options;
	struct tree tree;
	size_t strip;       /* bytes of a key that its name is without */
	bool looked;        /* at the tree that was there at the start */
	bool fresh;         /* the version below is what DIRECTORY holds, or what was refused */
	bool published;     /* DIRECTORY is a tree that this process has seen or made */
	unsigned version;   /* of the live records */
	long left_out;      /* keys that have no file */
	long long again_at; /* ms: after a failure; -1 */
	long long look_at;  /* ms: when to look whether DIRECTORY is still there */
	bool failed;        /* nothing was published, or --exec's command has failed */
};

/* ---- names ---- */

static char *name_of(const struct mirror *m, const struct live_record *r)
{
	struct span key = live_key(r);
	char *name = mem_alloc(filename_room(key.n));

	filename_of((struct span){key.p + m->strip, key.n - m->strip},
		    m->c->opt[OPT_FOLDERS] != NULL, name);
	return name;
}

/* The key has no file. Each is named once. */
static void leave_out(struct mirror *m, struct live_record *r, const char *why)
{
	m->left_out++;
	if (!r->told)
		cli_say("mirror: %s is left out: %s",
			visible_sentence((struct hpkv_bytes){r->key, r->key_n}), why);
	r->told = true;
}

static bool fits(struct mirror *m, struct live_record *r, const char *name)
{
	if (filename_fits(name))
		return true;
	leave_out(m, r, "its file's name would have more than 255 bytes");
	return false;
}

/* ---- a tree ---- */

/* Errors that are about one name, not about the tree. NULL: it is another. */
static const char *fault_of_name(int error)
{
	switch (-error) {
	case EEXIST:
	case ENOTDIR:
	case EISDIR:
		return "a folder, or another file, has its name";
	case ENAMETOOLONG:
		return "the file system takes no name that is as long";
	case EILSEQ:
	case EINVAL:
		return "the file system does not take its name";
	default:
		return NULL;
	}
}

/* One record in one pass: its folders, or its file. */
static int write_one(struct mirror *m, struct live_record *r, bool folders)
{
	char *name = name_of(m, r);
	int error = 0;

	if (!filename_fits(name) && folders)
		; /* the other pass says so */
	else if (folders)
		error = tree_add_folders(&m->tree, name);
	else if (fits(m, r, name))
		error = tree_add(&m->tree, name, (struct span){r->value, r->n});
	free(name);
	if (error && fault_of_name(error)) {
		if (!folders)
			leave_out(m, r, fault_of_name(error));
		error = 0; /* the pass that writes files meets with it again */
	}
	return error;
}

/* Folders first, so that a key whose name is a folder's is the one that is left out. */
static bool write_tree(struct mirror *m, struct live_record **list, size_t n)
{
	int error = 0;

	m->left_out = 0;
	if (!tree_make(&m->tree))
		return false;
	for (size_t i = 0; m->c->opt[OPT_FOLDERS] && !error && i < n; i++)
		error = write_one(m, list[i], true);
	for (size_t i = 0; !error && i < n; i++)
		error = write_one(m, list[i], false);
	if (error) {
		cli_say("mirror: can't write a tree for %s: %s; it stays as it is",
			visible_sentence(hpkv_str(m->tree.path)), strerror(-error));
		return false;
	}
	return tree_finish(&m->tree);
}

/* Is the tree that was there at the start this one? */
static bool is_there(struct mirror *m, struct live_record **list, size_t n)
{
	long files = 0;
	bool same = true;

	m->left_out = 0;
	for (size_t i = 0; same && i < n; i++) {
		char *name = name_of(m, list[i]);
		if (fits(m, list[i], name)) {
			files++;
			same = tree_has(&m->tree, name, (struct span){list[i]->value, list[i]->n});
		}
		free(name);
	}
	return same && tree_count(&m->tree) == files;
}

/* ---- commands ---- */

/* Runs it to its end, in a folder (-1: here), and tells it where the tree is. Returns whether it
 * ended well. */
static bool run_command(const char *what, const char *command, int folder, const char *path)
{
	int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), status = 0;
	int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int error = input < 0 || (folder >= 0 && fchdir(folder)) ? -errno : 0;

	setenv(own_variable, path, 1);
	if (!error)
		error = child_run(command, environ, input, &status);
	if (folder >= 0 && here >= 0 && fchdir(here) && !error)
		error = -errno;
	if (here >= 0)
		close(here);
	if (input >= 0)
		close(input);
	if (error)
		cli_say("mirror: %s was not run: %s", what, strerror(-error));
	else if (WIFSIGNALED(status))
		cli_say("mirror: %s was ended by signal %d", what, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		cli_say("mirror: %s ended with status %d", what, WEXITSTATUS(status));
	return !error && status == 0;
}

static bool is_good(struct mirror *m)
{
	const char *command = m->c->opt[OPT_CHECK];

	if (!command)
		return true;
	char *path = tree_path(&m->tree);
	bool good = run_command("the check", command, m->tree.fresh_fd, path);
	free(path);
	if (!good)
		cli_say("mirror: %s stays as it is", visible_sentence(hpkv_str(m->tree.path)));
	return good;
}

/* ---- publishing ---- */

static void put_off(struct mirror *m)
{
	m->failed = true;
	m->fresh = false;
	m->again_at = cli_now_ms() + AGAIN_MS;
}

/* Runs --exec's command if it is due: the directory was exchanged, perhaps by a process that was
 * killed before the command had ended. */
static void tell(struct mirror *m)
{
	const char *command = m->c->opt[OPT_EXEC];

	if (!command || !tree_is_due(&m->tree))
		return;
	m->failed = !run_command("the command", command, -1, m->tree.path);
	tree_done(&m->tree);
}

/* The records as they are become the directory. */
static void publish(struct mirror *m)
{
	size_t n;
	struct live_record **list = live_list(&m->live, &n);
	bool there = !m->looked && is_there(m, list, n);

	m->looked = m->fresh = true;
	m->version = m->live.version;
	m->again_at = -1;
	m->failed = false;
	bool written = there || write_tree(m, list, n);
	free(list);
	if (!written) {
		put_off(m);
	} else if (!there && !is_good(m)) {
		m->failed = true; /* until something changes */
	} else if (!there && !tree_exchange(&m->tree, m->c->opt[OPT_EXEC] != NULL)) {
		put_off(m);
	} else {
		m->published = true;
		tell(m);
	}
	tree_discard(&m->tree);
}

/* Somebody may have removed or replaced the directory, which no change of a key tells. */
static void look(struct mirror *m)
{
	if (!m->published || cli_left_ms(m->look_at))
		return;
	m->look_at = cli_now_ms() + LOOK_MS;
	if (m->again_at < 0 && !tree_is_there(&m->tree)) {
		cli_say("mirror: %s is gone: making it anew",
			visible_sentence(hpkv_str(m->tree.path)));
		m->fresh = false;
	}
}

static bool is_due(const struct mirror *m)
{
	return m->again_at >= 0 ? cli_left_ms(m->again_at) == 0 || m->version != m->live.version
				: !m->fresh || m->version != m->live.version;
}

static int follow(struct mirror *m)
{
	bool once = m->c->opt[OPT_ONCE] != NULL;

	for (;;) {
		int ms = live_step(&m->live);
		if (m->live.status)
			return m->live.status;
		look(m);
		if (live_is_ready(&m->live) && is_due(m)) {
			publish(m);
			ms = 0;
			if (once && m->failed)
				return CLI_USAGE;
			if (once)
				return m->left_out ? CLI_REFUSED : CLI_DONE;
		}
		long long at = m->again_at >= 0 ? m->again_at : m->published ? m->look_at : -1;
		if (at >= 0) {
			int left = (int)cli_left_ms(at);
			ms = ms < 0 || left < ms ? left : ms;
		}
		hpkv_wait(m->c->hpkv, ms);
	}
}

/* ---- options ---- */

static bool read_mode(const char *text, mode_t *mode)
{
	mode_t mask = umask(0);
	char *end;

	umask(mask);
	*mode = MODE_DEFAULT & ~mask;
	if (!text)
		return true;
	unsigned long value = strtoul(text, &end, 8);
	if (*end || !*text || *text == '-' || *text == '+' || value > MODE_MOST)
		return false;
	*mode = (mode_t)value;
	return true;
}

/* USER, USER:GROUP or :GROUP, as names or numbers. */
static bool read_owner(const char *text, struct tree_options *o)
{
	const char *colon = strchr(text, ':');
	char *user = mem_strndup(text, colon ? (size_t)(colon - text) : strlen(text));
	const char *group = colon ? colon + 1 : "";
	const struct passwd *pw = *user ? getpwnam(user) : NULL;
	const struct group *gr = *group ? getgrnam(group) : NULL;
	bool good = *user || *group;
	long number;

	if (pw)
		o->owner = pw->pw_uid;
	else if (*user && cli_count(user, 0, 0xfffffffeL, &number))
		o->owner = (uid_t)number;
	else if (*user)
		good = false;
	if (gr)
		o->group = gr->gr_gid;
	else if (*group && cli_count(group, 0, 0xfffffffeL, &number))
		o->group = (gid_t)number;
	else if (*group)
		good = false;
	free(user);
	return good;
}

static int read_options(struct mirror *m)
{
	const char *mode = m->c->opt[OPT_MODE], *owner = m->c->opt[OPT_OWNER];

	m->options = (struct tree_options){
		.owner = (uid_t)-1, .group = (gid_t)-1, .who = m->c->command->name};
	if (!read_mode(mode, &m->options.mode))
		return cli_usage(m->c, "--mode '%s' is no mode like 0640",
				 visible_name(hpkv_str(mode)));
	if (owner && !read_owner(owner, &m->options))
		return cli_usage(m->c, "--owner '%s' names nobody that is known here",
				 visible_name(hpkv_str(owner)));
	return CLI_DONE;
}

static int run(struct cli *c, int argc, char **argv)
{
	static struct mirror m;

	(void)argc;
	m = (struct mirror){.c = c, .again_at = -1};
	int status = read_options(&m);
	if (status)
		return status;
	if (c->opt[OPT_STRIP])
		m.strip = glob_literal((struct span){argv[0], strlen(argv[0])}).n;
	live_begin(&m.live, c, argv[0], NULL, !c->opt[OPT_ONCE]);
	status = tree_begin(&m.tree, argv[1], &m.options) ? follow(&m) : CLI_USAGE;
	tree_end(&m.tree);
	live_end(&m.live);
	return status;
}

const struct command cmd_mirror = {
	.name = "mirror",
	.args = "GLOB DIRECTORY",
	.summary = "keep a directory equal to the keys that match GLOB",
	.help = "Keeps a file for each key that matches GLOB (* stands for any characters).\n"
		"DIRECTORY is a link to a tree that is exchanged as a whole: programs see one\n"
		"state of the store or the next. While the service is away the last one stays.\n"
		"Files are named like their keys; / and other characters that names can't have\n"
		"are %XX. Keys with names of more than 255 bytes are reported and left out. The\n"
		"commands have the path in HPKV_DIRECTORY.\n"
		"\n"
		"  hpkv mirror 'app:*' /run/app/config --strip\n"
		"  hpkv mirror 'nginx:*' /etc/nginx/sites --strip -e 'systemctl reload nginx'\n",
	.options = {[OPT_STRIP] = {"strip", 'S', NULL, "names without what GLOB begins with"},
		    [OPT_FOLDERS] = {"folders", 'f', NULL, "a / in a key makes folders"},
		    [OPT_MODE] = {"mode", 'm', "MODE", "mode of the files (0644)"},
		    [OPT_OWNER] = {"owner", 'o', "USER", "owner of the files, or USER:GROUP"},
		    [OPT_EXEC] = {"exec", 'e', "CMD", "run CMD after each exchange"},
		    [OPT_CHECK] = {"check", 'c', "CMD", "run CMD in a new tree before it counts"},
		    [OPT_ONCE] = {"once", '1', NULL, "end once the directory is right"}},
	.min = 2,
	.max = 2,
	.words = WORDS_KEY_FOLDER,
	.exec = run,
};
