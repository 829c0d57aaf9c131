/* driver.h - what the drivers of the edge rooms have in common.
 *
 * A driver is a small program around one room and a loop. A test (Python) tells it on stdin what to
 * do, one command a line, and reads on stdout what the room said, one event a line that begins with
 * the event's name. So a test is written in the language in which misbehaving servers are easily
 * written, and the room is driven in its own. */
#pragma once

#include <event2/event.h>

struct driver_command {
	const char *name;
	void (*run)(char *rest); /* what follows the name; may be changed */
};

/* Makes the loop. */
struct event_base *driver_begin(void);

/* Runs commands (their list ends with an empty one) until "exit" or the end of stdin. "beats" is
 * known to all drivers: it says how often a timer of 5 ms has beaten since it was last asked. */
void driver_run(const struct driver_command *commands);

/* Does one command now, or, for driver_when(), once driver_react() names its event; each is done
 * once. */
void driver_do(char *line);
void driver_when(const char *event, const char *line);
void driver_react(const char *event);

/* Frees the loop, when the room is gone. */
void driver_end(void);
