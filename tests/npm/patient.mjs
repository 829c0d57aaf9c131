// test(), before() and after() of node:test with a bound: what takes longer than a minute fails, and the process ends although
// something is left running.
import * as runner from 'node:test';

const BOUND_MS = 60000;
let last;

function bounded(body) {
	return (context) => {
		clearTimeout(last);
		last = setTimeout(() => {
			console.error('something is still running after the last test');
			process.exit(1);
		}, BOUND_MS + 20000).unref();
		return body(context);
	};
}

export const before = (hook) => runner.before(bounded(hook), { timeout: BOUND_MS });
export const after = (hook) => runner.after(bounded(hook), { timeout: BOUND_MS });
export const test = (name, body) => runner.test(name, { timeout: BOUND_MS }, bounded(body));
export const { describe } = runner;
