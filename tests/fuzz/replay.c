/* replay.c - runs a fuzz target without a fuzzer: on the files that it is given, as the fuzzer
 * leaves them when it has found something, or else on the target's seeds, on every beginning of
 * each, and on each with one byte changed. */
#include <errno.h>

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

/* Tells what came of it in the Test Anything Protocol; a target that finds something aborts, and
 * its line is missing. */
int main(int argc, char **argv)
{
	int files = argc - 1, failed = 0;

	printf("1..%d\n", files ? files : (int)fuzz_n_seeds);
	for (int i = 1; i <= files; i++) {
		int error = run_file(argv[i]);
		printf("%sok %d - %s%s%s\n", error ? "not " : "", i, argv[i], error ? ": " : "",
		       error ? strerror(-error) : "");
		failed |= error;
	}
	for (size_t i = 0; !files && i < fuzz_n_seeds; i++) {
		run_seed(fuzz_seeds[i]);
		printf("ok %zu - seed and its neighbours\n", i + 1);
		fflush(stdout);
	}
	return failed ? 1 : 0;
}
