#include "cli/shell-line.h"

#include <stdio.h>
#include <string.h>

#include "../test.h"

/* What is expected of a word: ? in front if it is unknown, * if it holds a glob. */
static void check(enum shell shell, const char *line, const char *const *words, long current,
		  const char *typed)
{
	char text[400];
	struct shell_line l;
	const char *caret = strchr(line, '^');
	size_t cursor = (size_t)(caret - line), n = 0;

	snprintf(text, sizeof(text), "%.*s%s", (int)cursor, line, caret + 1);
	shell_line_read(&l, shell, text, cursor, cursor);
	for (; words[n]; n++) {
		assert_true(n < l.n);
		char got[400];
		snprintf(got, sizeof(got), "%s%s%s", l.words[n].unknown ? "?" : "",
			 l.words[n].glob && !l.words[n].unknown ? "*" : "", l.words[n].text);
		assert_string_equal(words[n], got);
	}
	assert_int_equal(n, l.n);
	assert_int_equal(current, l.current);
	if (current >= 0) {
		assert_int_equal(strlen(typed), l.typed);
		assert_memory_equal(typed, l.words[current].text, l.typed);
	}
	shell_line_free(&l);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void words_as_all_shells_read_them(void **state)
{
	(void)state;
	for (enum shell shell = SHELL_BASH; shell <= SHELL_FISH; shell++) {
		check(shell, "a b^", WORDS("a", "b"), 1, "b");
		check(shell, "a ^", WORDS("a", ""), 1, "");
		check(shell, "a ^ b", WORDS("a", "", "b"), 1, "");
		check(shell, "a b^c d", WORDS("a", "bc", "d"), 1, "b");
		check(shell, "a 'b c'\\ d\"e f\"^", WORDS("a", "b c de f"), 1, "b c de f");
		check(shell, "a '' \"\" ^", WORDS("a", "", "", ""), 3, "");
		check(shell, "a 'b ^", WORDS("a", "b "), 1, "b ");
		check(shell, "a \"b\\\"c\\x^", WORDS("a", "b\"c\\x"), 1, "b\"c\\x");
		check(shell, "a b\\^", WORDS("a", "b"), 1, "b");
		check(shell, "x y; a b^; z", WORDS("a", "b"), 1, "b");
		check(shell, "x | a b^ | z", WORDS("a", "b"), 1, "b");
		check(shell, "x && a b^", WORDS("a", "b"), 1, "b");
		check(shell, "a >f b^ 2>>g c <h", WORDS("a", "b", "c"), 1, "b");
		check(shell, "a >f^", WORDS("a"), -1, "");
		check(shell, "a > f^ b", WORDS("a", "b"), -1, "");
		check(shell, "a $(b c) d^", WORDS("a", "?", "d"), 2, "d");
		check(shell, "a x$(b (c) d)y e^", WORDS("a", "?x", "e"), 2, "e");
		check(shell, "a $(b ^", WORDS("a", "?"), -1, "");
		check(shell, "a b* c^", WORDS("a", "*b*", "c"), 2, "c");
		check(shell, "a 'b*' c^", WORDS("a", "b*", "c"), 2, "c");
		check(shell, "a $ONE/x \"$ONE\" '$ONE' ^", WORDS("a", "1/x", "1", "$ONE", ""), 4,
		      "");
		check(shell, "a $UNTOLD \"x$UNTOLD\" ^", WORDS("a", "?", "?x", ""), 3, "");
		check(shell, "a $NONE ^", WORDS("a", ""), 1, "");
		check(shell, "a $ONE^x", WORDS("a", "1x"), 1, "1");
		check(shell, "a ~/b '~/b' ^", WORDS("a", "/home/me/b", "~/b", ""), 3, "");
	}
}

static void what_each_shell_has_of_its_own(void **state)
{
	(void)state;
	check(SHELL_BASH, "a $'b\\n\\x41\\303\\u00e9\\'' ^", WORDS("a", "b\nA\303\u00e9'", ""), 2,
	      "");
	check(SHELL_BASH, "a $'b\\30^", WORDS("a", "b"), 1, "b");
	check(SHELL_BASH, "a $TWO \"$TWO\" x$TWO^", WORDS("a", "1", "2", "1 2", "x1", "2"), 5, "2");
	check(SHELL_ZSH, "a $TWO^", WORDS("a", "1 2"), 1, "1 2");
	check(SHELL_BASH, "a ${ONE}b ${ONE:-x} $1 $$ ^", WORDS("a", "1b", "?", "?", "?", ""), 5,
	      "");
	check(SHELL_BASH, "a `b c` d^", WORDS("a", "?", "d"), 2, "d");
	check(SHELL_BASH, "a <(b c) d^", WORDS("a", "?", "d"), 2, "d");
	check(SHELL_BASH, "a &>f b^", WORDS("a", "b"), 1, "b");
	check(SHELL_BASH, "a b^ # -c d", WORDS("a", "b"), 1, "b");
	check(SHELL_BASH, "a b#c^", WORDS("a", "b#c"), 1, "b#c");
	check(SHELL_ZSH, "a =b c^", WORDS("a", "*=b", "c"), 2, "c");
	check(SHELL_ZSH, "a b=~/c d^", WORDS("a", "*b=~/c", "d"), 2, "d");
	check(SHELL_BASH, "a b=~/c d^", WORDS("a", "b=~/c", "d"), 2, "d");
	check(SHELL_FISH, "a 'b\\'c\\\\\\n' \\n\\x41 (b c) ^",
	      WORDS("a", "b'c\\\\n", "\nA", "?", ""), 4, "");
	check(SHELL_FISH, "a \"`b`\" ^", WORDS("a", "`b`", ""), 2, "");
}

/* Any text, quoted for any place, is read as itself. */
static void what_is_quoted_is_read_as_it_was(void **state)
{
	static const char *const begun[] = {[QUOTE_NONE] = "",
					    [QUOTE_SINGLE] = "'",
					    [QUOTE_DOUBLE] = "\"",
					    [QUOTE_ANSI] = "$'"};
	static const char *const parts[] = {"a",        " ",        "'",     "\"", "\\",   "$ONE",
					    "`",        "!",        "\n",    "\t", "\001", "\177",
					    "\302\205", "\303\251", "*",     "~",  "#",    "=",
					    ";",        "(",        "{a,b}", "-",  "0"};
	unsigned dice = 1;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		char text[200] = "", line[2000];
		enum shell_quote quote = round % 4;
		for (unsigned i = 0; i < 1 + round % 7; i++) {
			dice = dice * 1103515245 + 12345;
			strcat(text, parts[(dice >> 16) % COUNT(parts)]);
		}
		char *quoted = shell_quote(text, quote);
		int cursor = snprintf(line, sizeof(line), "a x%s%s", begun[quote], quoted);
		struct shell_line l;
		shell_line_read(&l, SHELL_BASH, line, 3 + strlen(begun[quote]), (size_t)cursor);
		assert_int_equal(2, l.n);
		assert_false(l.words[1].unknown || l.words[1].glob);
		assert_string_equal(text, l.words[1].text + 1);
		assert_int_equal(1, l.current);
		assert_int_equal(1, l.kept);
		assert_int_equal(quote, l.quote);
		shell_line_free(&l);
		free(quoted);
	}
}

/* No line, however it is cut, is read beyond its end. */
static void any_bytes_are_a_line(void **state)
{
	static const char bytes[] = "a '\"\\$`~(){}<>&|;#*=\n\tONE0x\303";
	unsigned dice = 7;

	(void)state;
	for (unsigned round = 0; round < 60000; round++) {
		char text[24];
		size_t n = 0;
		for (; n < round % sizeof(text); n++) {
			dice = dice * 1103515245 + 12345;
			text[n] = bytes[(dice >> 16) % (sizeof(bytes) - 1)];
		}
		char *exact = malloc(n + 1);
		memcpy(exact, text, n);
		exact[n] = '\0';
		struct shell_line l;
		size_t cursor = n ? dice % (n + 1) : 0;
		shell_line_read(&l, round % 3, exact, cursor / 2, cursor);
		assert_true(l.current < (long)l.n);
		if (l.current >= 0)
			assert_true(l.kept <= l.typed && l.typed <= l.words[l.current].n);
		shell_line_free(&l);
		free(exact);
	}
}

static int set_environment(void **state)
{
	(void)state;
	setenv("HPKV_VAR_ONE", "1", 1);
	setenv("HPKV_VAR_TWO", "1 2", 1);
	setenv("HPKV_VAR_NONE", "", 1);
	setenv("HOME", "/home/me", 1);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_as_all_shells_read_them),
		cmocka_unit_test(what_each_shell_has_of_its_own),
		cmocka_unit_test(what_is_quoted_is_read_as_it_was),
		cmocka_unit_test(any_bytes_are_a_line),
	};

	return cmocka_run_group_tests_name("shell-line", tests, set_environment, NULL);
}
