/* randomness.h - OpenSSL's random numbers, which can fail: then the process is to end, since
 * nothing may be sent with a key that can be foreseen. */
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/random.h>

#include <openssl/rand.h>

static bool randomness_fails;
static sigjmp_buf randomness_before;

int RAND_bytes(unsigned char *to, int n)
{
	return !randomness_fails && getrandom(to, (size_t)n, 0) == n;
}

static void randomness_on_abort(int signal_number)
{
	(void)signal_number;
	siglongjmp(randomness_before, 1);
}

/* Does the call end the process if there are no random numbers? */
static bool aborts_without_randomness(void (*call)(void))
{
	void (*former)(int) = signal(SIGABRT, randomness_on_abort);
	volatile bool aborted = true;

	randomness_fails = true;
	if (!sigsetjmp(randomness_before, 1)) {
		call();
		aborted = false;
	}
	randomness_fails = false;
	signal(SIGABRT, former);
	return aborted;
}
