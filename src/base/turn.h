/* turn.h - what is done once at the end of a turn of the loop, such as writing what was gathered.
 *
 * turn_loop() runs libevent's loop. In each turn it has all events handled that the kernel has
 * reported and all timers that are due, then runs the steps that were asked for meanwhile, in that
 * order and each once. Without this the loop would have to ask the kernel again between the two.
 *
 * A step that is asked for while steps run, or outside of turn_loop(), runs in the next turn, as a
 * timer does (timer.h): so steps that ask for each other leave room for everything else.
 *
 * A step is a part of its owner's structure. */
#pragma once

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct turn_step {
	void (*run)(void *owner);
	void *owner;
	struct event *later; /* for the next turn */
	bool wanted;         /* is in the list of this turn's steps */
	TAILQ_ENTRY(turn_step) of_turn;
};

void turn_step_init(struct turn_step *s, struct event_base *base, void (*run)(void *owner),
		    void *owner);
void turn_step_fini(struct turn_step *s);

void turn_step_want(struct turn_step *s);  /* once, however often it is asked for */
void turn_step_later(struct turn_step *s); /* the same, in the next turn at the earliest */
void turn_step_forgo(struct turn_step *s);

/* Tells turns apart: it is another number in each. */
uint32_t turn_number(void);

/* Runs until event_base_loopbreak(), or until no event is left. 0, or -1: the kernel does not tell
 * events. One loop at a time. */
int turn_loop(struct event_base *base);
