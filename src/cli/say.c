#include "say.h"

#include <stdarg.h>
#include <stdio.h>

#include "visible.h"

void cli_say(const char *format, ...)
{
	char text[1200], shown[1600];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* Text from elsewhere must not add lines or steer the terminal. */
	visible_text(shown, sizeof(shown), hpkv_str(text));
	fflush(stdout); /* keeps both streams in order on a terminal */
	fprintf(stderr, "hpkv: %s\n", shown);
}

const char *say_count(long n, const char *what)
{
	static char texts[4][64];
	static unsigned next;
	char *text = texts[next++ % 4];

	snprintf(text, sizeof(texts[0]), "%ld %s%s", n, what, n == 1 ? "" : "s");
	return text;
}
