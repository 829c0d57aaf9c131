#!/bin/sh
# run-unit.sh PROGRAM - runs a test program of cmocka, which calls a case that was skipped "not ok"; TAP would count it as failed.
exec 3>&1
status=$({
	{
		timeout --foreground 300 "$@" 4>&-
		echo $? >&4
	} | sed 's/^not ok \([0-9]* # SKIP\)/ok \1/' >&3
} 4>&1)
exit "$status"
