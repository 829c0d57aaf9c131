/* shift-clock.c - gives a program that it is preloaded into (LD_PRELOAD) clocks that a test can
 * shift, as an administrator or NTP shifts the wall clock, and as sleep shifts what goes on
 * meanwhile.
 *
 * SHIFT_CLOCK names a Unix socket that the test listens on. It says, a line each, and is answered
 * with "done" once it is so:
 *
 *     wall MS     the wall clock jumps by that much, and is ahead or behind from now on
 *     sleep MS    the machine sleeps so long, in no time: the boot clock and the wall clock have
 * gone on, the monotonic clock has not, and timers of the boot clock are due
 *
 * The kernel is asked by system calls, so that it does not matter whose clock_gettime() would be
 * the next one. CLOCK_BOOTTIME timers have to be absolute. */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TIMERS = 1024, NS_PER_S = 1000000000, NS_PER_MS = 1000000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t wall_ns, boot_ns;        /* by how much they are ahead */
static bool is_boot_timer[TIMERS];      /* by descriptor */
static struct itimerspec timer[TIMERS]; /* as the program has set them */

static int64_t ns_of(const struct timespec *t)
{
	return (int64_t)t->tv_sec * NS_PER_S + t->tv_nsec;
}

static struct timespec time_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	int status = (int)syscall(SYS_clock_gettime, id, t);

	if (status < 0)
		return status;
	pthread_mutex_lock(&lock);
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
		*t = time_of(ns_of(t) + wall_ns);
	else if (id == CLOCK_BOOTTIME)
		*t = time_of(ns_of(t) + boot_ns);
	pthread_mutex_unlock(&lock);
	return 0;
}

time_t time(time_t *out)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}

int gettimeofday(struct timeval *out, void *zone)
{
	struct timespec t;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &t);
	*out = (struct timeval){.tv_sec = t.tv_sec, .tv_usec = t.tv_nsec / 1000};
	return 0;
}

/* ---- timers of the boot clock ---- */

static bool is_set(const struct itimerspec *t)
{
	return t->it_value.tv_sec || t->it_value.tv_nsec;
}

static int set_timer(int fd, const struct itimerspec *wanted, struct itimerspec *old)
{
	struct itimerspec shifted = *wanted;

	if (is_set(wanted)) {
		int64_t ns = ns_of(&wanted->it_value) - boot_ns;
		shifted.it_value = time_of(ns > 0 ? ns : 1);
	}
	return (int)syscall(SYS_timerfd_settime, fd, TFD_TIMER_ABSTIME, &shifted, old);
}

int timerfd_create(int clock, int flags)
{
	int fd = (int)syscall(SYS_timerfd_create, clock, flags);

	if (fd >= 0 && fd < TIMERS) {
		pthread_mutex_lock(&lock);
		is_boot_timer[fd] = clock == CLOCK_BOOTTIME;
		timer[fd] = (struct itimerspec){0};
		pthread_mutex_unlock(&lock);
	}
	return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *wanted, struct itimerspec *old)
{
	if (fd < 0 || fd >= TIMERS || !is_boot_timer[fd])
		return (int)syscall(SYS_timerfd_settime, fd, flags, wanted, old);
	if (is_set(wanted) && flags != TFD_TIMER_ABSTIME)
		abort(); /* whoever needs it may write it */
	pthread_mutex_lock(&lock);
	timer[fd] = *wanted;
	int status = set_timer(fd, wanted, old);
	pthread_mutex_unlock(&lock);
	return status;
}

/* Those that would have gone off by now have; the others are nearer. */
static void sleep_ns(int64_t ns)
{
	struct timespec now;

	syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &now);
	for (int fd = 0; fd < TIMERS; fd++) {
		if (!is_boot_timer[fd] || ns_of(&timer[fd].it_value) <= ns_of(&now) + boot_ns)
			timer[fd] = (struct itimerspec){0};
	}
	boot_ns += ns;
	wall_ns += ns;
	for (int fd = 0; fd < TIMERS; fd++) {
		if (is_set(&timer[fd]))
			set_timer(fd, &timer[fd], NULL);
	}
}

/* ---- the test speaks ---- */

static void obey(const char *line)
{
	int64_t ms = strtoll(line + strcspn(line, " "), NULL, 10);

	pthread_mutex_lock(&lock);
	if (strncmp(line, "wall ", 5) == 0)
		wall_ns += ms * NS_PER_MS;
	else if (strncmp(line, "sleep ", 6) == 0)
		sleep_ns(ms * NS_PER_MS);
	else
		abort();
	pthread_mutex_unlock(&lock);
}

/* Not by a FILE: while a thread reads from one, exit() waits for its lock (glibc 2.41). The test
 * says one line at a time, and waits. */
static void *listen_to_the_test(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char line[80];
	ssize_t n;

	while ((n = read(fd, line, sizeof(line) - 1)) > 0) {
		line[n] = '\0';
		obey(line);
		if (write(fd, "done\n", 5) != 5)
			break;
	}
	close(fd);
	return NULL;
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("SHIFT_CLOCK");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	sigset_t all, before;
	pthread_t thread;

	if (!path || strlen(path) >= sizeof(address.sun_path))
		return;
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		abort();
	sigfillset(&all); /* signals are for the program's own threads */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, listen_to_the_test, (void *)(intptr_t)fd))
		abort();
	pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
