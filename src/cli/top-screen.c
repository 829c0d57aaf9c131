/* The screen of hpkv top: ncurses if the build has it, else none. */
#include "top.h"

#ifdef HAVE_NCURSES
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include <curses.h>
#include <term.h>
#undef lines /* a macro of ncurses, a member of ours */

#include "signals.h"

static volatile sig_atomic_t signalled;
static const struct top_page *shown; /* repainted when the size changes */

/* What restores the terminal without ncurses. */
static struct {
	int fd;
	struct termios settings;
	const char *texts[2]; /* from terminfo; NULL: the terminal has none */
} former;

enum { STUCK_AFTER_S = 2 };

/* Termination is overdue: the daemon is slow to answer, or ncurses keeps writing to a terminal that
 * takes nothing. Everything called here is safe in a signal handler. */
static void on_alarm(int number)
{
	struct pollfd p = {.fd = former.fd, .events = POLLOUT};

	(void)number;
	tcsetattr(former.fd, TCSANOW, &former.settings);
	for (unsigned i = 0; i < 2; i++) {
		if (!former.texts[i] || poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT))
			continue;
		if (write(former.fd, former.texts[i], strlen(former.texts[i])) < 0)
			break;
	}
	signals_end(signalled);
}

static const char *text_named(const char *name)
{
	char copy[16];

	snprintf(copy, sizeof(copy), "%s", name);
	const char *text = tigetstr(copy);
	return text == (const char *)-1 ? NULL : text;
}

/* The handler of ncurses would end the program with its own exit status. */
static void on_signal(int number)
{
	signalled = number;
	signal(SIGALRM, on_alarm);
	alarm(STUCK_AFTER_S);
}

/* Opens the terminal anew: ncurses busily repeats writes to a non-blocking file. */
static FILE *open_terminal(void)
{
	const char *name = ttyname(STDOUT_FILENO);
	int fd = name ? open(name, O_WRONLY | O_NOCTTY | O_CLOEXEC) : -1;

	return fdopen(fd >= 0 ? fd : STDOUT_FILENO, "w");
}

static bool screen_open(void)
{
	FILE *terminal = open_terminal();

	if (!terminal)
		return false;
	former.fd = fileno(terminal);
	tcgetattr(former.fd, &former.settings);
	if (!newterm(NULL, terminal, stdin))
		return false; /* signal handlers stay as they were: the pages are printed without a
				 screen */
	former.texts[0] = text_named("rmcup");
	former.texts[1] = text_named("cnorm");
	signals_catch(on_signal);
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	return true;
}

static void screen_colours(bool on)
{
	static const short colours[] = {
		[SHOW_KEY] = COLOR_CYAN, [SHOW_GOOD] = COLOR_GREEN, [SHOW_BAD] = COLOR_RED};
	static bool begun;

	if (begun || !on || !has_colors())
		return;
	begun = true;
	start_color();
	use_default_colors();
	for (short i = SHOW_KEY; i <= SHOW_BAD; i++)
		init_pair(i, colours[i], -1);
}

static void screen_show(const struct top_page *page)
{
	shown = page;
	screen_colours(page->colour);
	erase();
	for (unsigned i = 0; i < page->n && (int)i < LINES; i++) {
		const struct top_line *line = &page->lines[i];
		attr_t look = line->reverse ? A_REVERSE : A_NORMAL;
		if (line->colour == SHOW_DIM)
			look |= A_DIM;
		else if (line->colour != SHOW_PLAIN && page->colour)
			look |= (attr_t)COLOR_PAIR(line->colour);
		attrset((int)look);
		mvaddnstr((int)i, 0, line->text, COLS);
		if (line->reverse)
			hline(' ' | A_REVERSE, COLS);
	}
	attrset(A_NORMAL);
	refresh();
}

/* Has the terminal gone? SIGHUP only goes to processes whose controlling terminal it is. */
static bool is_gone(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR | POLLNVAL);
}

static bool screen_wait(int ms)
{
	long long until = cli_now_ms() + ms;
	int key = KEY_RESIZE;

	/* A signal that came during a request does not wake getch(). */
	while (key == KEY_RESIZE && !signalled) {
		timeout((int)cli_left_ms(until));
		key = getch();
		if (key == KEY_RESIZE)
			screen_show(shown);
	}
	return !signalled && key != 'q' && key != 'Q' && key != 3 && !(key == ERR && is_gone());
}

static void screen_close(void)
{
	endwin();
	if (signalled) /* the terminal is restored: end by the signal */
		signals_end(signalled);
}

static const struct top_screen screen = {screen_open, screen_show, screen_wait, screen_close};
const struct top_screen *const top_screen = &screen;

#else

const struct top_screen *const top_screen = NULL;

#endif
