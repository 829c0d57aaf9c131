/* watch-libhpkv.c - a C program that watches keys in its own event loop, which also reads lines of
 * stdin: each is a key to look up.
 *
 *	cc watch-libhpkv.c $(pkg-config --cflags --libs libhpkv) -o watch && ./watch 'user:*' */
#include <hpkv.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

static void on_event(void *arg, const struct hpkv_event *e)
{
	(void)arg;
	if (e->type == HPKV_EVENT_CHANGE && e->value.p)
		printf("%s is now %s\n", e->key.p, e->value.p);
	else if (e->type == HPKV_EVENT_CHANGE)
		printf("%s was deleted\n", e->key.p);
	else if (e->type == HPKV_EVENT_GAP)
		printf("(changes may have been missed)\n");
	else if (e->type == HPKV_EVENT_DROPPED)
		printf("(the end: %s)\n", e->text);
	fflush(stdout);
}

static void on_value(void *arg, const struct hpkv_answer *answer)
{
	(void)arg;
	printf("looked up: %s\n", answer->result == HPKV_OK ? answer->value.p : answer->error);
	fflush(stdout);
}

/* One line of stdin. */
static void look_up(struct hpkv *h, char *line)
{
	struct hpkv_request get = {.op = HPKV_GET};

	line[strcspn(line, "\n")] = '\0';
	get.key = hpkv_str(line);
	if (hpkv_send(h, &get, on_value, NULL) != HPKV_OK)
		fprintf(stderr, "%s\n", hpkv_error(h));
}

int main(int argc, char **argv)
{
	struct hpkv *h = hpkv_new(NULL);
	struct hpkv_bytes pattern = hpkv_str(argc > 1 ? argv[1] : "*");
	char line[600];

	if (!h)
		return 1;
	hpkv_on_event(h, on_event, NULL);
	if (hpkv_subscribe(h, NULL, 0, &pattern, 1, 0) != HPKV_OK) {
		fprintf(stderr, "%s\n", hpkv_error(h));
		hpkv_free(h);
		return 1;
	}
	puts("watching");
	fflush(stdout);
	setvbuf(stdin, NULL, _IONBF, 0);
	struct pollfd fds[2] = {{hpkv_fd(h), POLLIN, 0}, {0, POLLIN, 0}};
	while (poll(fds, 2, -1) >= 0) {
		if (fds[0].revents)
			hpkv_process(h);
		if (fds[1].revents) {
			if (!fgets(line, sizeof(line), stdin))
				break;
			look_up(h, line);
		}
	}
	hpkv_free(h);
	return 0;
}
