/* ask.c - asks hpkvd without any library: sends one request and prints the answer.
 *
 *	cc -o ask ask.c
 *	./ask '{"op":"get","key":"user:1"}'
 *
 * Exit status: 0 the answer has come, whatever it says; 1 it was not sent; 2 it was sent, and there
 * is no answer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* [ask] */
/* A connection to hpkvd, or -1 (errno). */
static int hpkvd_connect(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct timeval patience = {
		.tv_sec = 30}; /* hpkvd answers within 10 s; this is for a daemon that hangs */
	int fd;

	if (strlen(path) >= sizeof(at.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(at.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Writes all of it; -1 (errno). MSG_NOSIGNAL: a closed connection is an error, not a signal. */
static int send_all(int fd, const char *text, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
		if (sent < 0)
			return -1;
		text += sent;
		n -= (size_t)sent;
	}
	return 0;
}
/* [end] */

int main(int argc, char **argv)
{
	const char *path = getenv("HPKVD_SOCKET");
	char *answer = NULL;
	size_t size = 0;
	FILE *answers; /* an answer may come in pieces */
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: ask REQUEST\n");
		return 1;
	}
	fd = hpkvd_connect(path ? path : "/run/hpkvd/hpkvd.sock");
	answers = fd < 0 ? NULL : fdopen(fd, "r");
	if (!answers || send_all(fd, argv[1], strlen(argv[1])) < 0 || send_all(fd, "\n", 1) < 0) {
		perror("hpkvd");
		return 1;
	}
	if (getline(&answer, &size, answers) < 0 || !strchr(answer, '\n')) {
		fprintf(stderr, "hpkvd has sent no answer\n");
		return 2;
	}
	fputs(answer, stdout);
	free(answer);
	fclose(answers);
	return 0;
}
