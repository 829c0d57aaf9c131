/* replay.c - runs a fuzz target without a fuzzer: on the files that it is given, as the fuzzer
 * leaves them when it has found something, or else on the target's seeds, on every beginning of
 * each, and on each with one byte changed, and on the texts of its corpus
 * ($SRCDIR/tests/fuzz/corpus/TARGET, written by tests/fuzz/run). With --write FOLDER it writes the
 * seeds as files for the fuzzer. */
#include <errno.h>
#include <limits.h>

#include "fuzz.h"

static void run(struct span text)
{
	char *copy = fuzz_memory(text.n);

	memcpy(copy, text.p, text.n);
	LLVMFuzzerTestOneInput((const uint8_t *)copy, text.n);
	free(copy);
}

/* Bytes that mean something to some parser of ours. */
static const struct span telling = SPAN("\0\n\r \"\\{}[],:-.0e9u\x7f\x80\xc3\xed\xff");

static void run_changed(struct span seed)
{
	char *text = fuzz_memory(seed.n);

	memcpy(text, seed.p, seed.n);
	for (size_t at = 0; at < seed.n; at++) {
		for (size_t i = 0; i < telling.n; i++) {
			text[at] = telling.p[i];
			run((struct span){text, seed.n});
		}
		text[at] = seed.p[at];
	}
	free(text);
}

static void run_seed(struct span seed)
{
	for (size_t n = 0; n <= seed.n; n++)
		run((struct span){seed.p, n});
	run_changed(seed);
}

/* 0, or -errno. */
static int run_file(const char *path)
{
	static char text[1 << 20];
	FILE *f = fopen(path, "rb");

	if (!f)
		return -errno;
	size_t n = fread(text, 1, sizeof(text), f);
	fclose(f);
	run((struct span){text, n});
	return 0;
}

/* ---- the packed corpus ---- */

static int digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* A line of the corpus, in place: \xNN is a byte. */
static size_t unpack(char *line, size_t n)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		bool escaped = line[i] == '\\' && i + 3 < n;
		line[out++] =
			escaped ? (char)(digit(line[i + 2]) * 16 + digit(line[i + 3])) : line[i];
		i += escaped ? 3 : 0;
	}
	return out;
}

/* The number of texts; 0: the target has no corpus. */
static size_t run_corpus(const char *program)
{
	const char *base = strrchr(program, '/'), *source = getenv("SRCDIR");
	const char *target = strstr(base ? base : program, "replay-");
	char path[PATH_MAX], *line = NULL;
	size_t size = 0, texts = 0;
	ssize_t n;

	if (!target || !source)
		return 0;
	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", source, target + strlen("replay-"));
	FILE *f = fopen(path, "r");
	while (f && (n = getline(&line, &size, f)) > 0) {
		run((struct span){line, unpack(line, (size_t)n - 1)});
		texts++;
	}
	free(line);
	if (f)
		fclose(f);
	return texts;
}

/* ---- what is run ---- */

static int write_seeds(const char *folder)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < fuzz_n_seeds; i++) {
		snprintf(path, sizeof(path), "%s/seed-%zu", folder, i);
		FILE *f = fopen(path, "wb");
		if (!f || fwrite(fuzz_seeds[i].p, 1, fuzz_seeds[i].n, f) != fuzz_seeds[i].n) {
			perror(path);
			return 1;
		}
		fclose(f);
	}
	return 0;
}

static int run_files(int n, char **paths)
{
	int failed = 0;

	printf("1..%d\n", n);
	for (int i = 0; i < n; i++) {
		int error = run_file(paths[i]);
		printf("%sok %d - %s%s%s\n", error ? "not " : "", i + 1, paths[i],
		       error ? ": " : "", error ? strerror(-error) : "");
		failed |= error;
	}
	return failed ? 1 : 0;
}

/* Tells what came of it in the Test Anything Protocol; a target that finds something aborts, and
 * its line is missing. */
int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--write") == 0)
		return write_seeds(argv[2]);
	if (argc > 1)
		return run_files(argc - 1, argv + 1);
	printf("1..%zu\n", fuzz_n_seeds + 1);
	for (size_t i = 0; i < fuzz_n_seeds; i++) {
		run_seed(fuzz_seeds[i]);
		printf("ok %zu - seed and its neighbours\n", i + 1);
		fflush(stdout);
	}
	printf("ok %zu - %zu texts of the corpus\n", fuzz_n_seeds + 1, run_corpus(argv[0]));
	return 0;
}
