// For tests in JavaScript: test(), before() and after() of node:test with a bound, and what starts servers.
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import { createInterface } from 'node:readline';
import * as runner from 'node:test';

const BOUND_MS = 60000;
let last;

// What takes longer than that fails, and the process ends although something is left running.
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

// A port that nothing listens on. It is below those that the kernel gives to programs that ask for any port.
export async function freePort() {
	const first = Number(fs.readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split('\t')[0]);
	for (let tries = 1; ; tries++) {
		const port = tries < 100 ? randomInt(Math.floor(first / 2), first) : 0; // where it gives out all that we may have
		const server = net.createServer().listen(port, '127.0.0.1');
		const taken = await once(server, 'listening').then(() => false, () => true);
		if (taken)
			continue;
		const { port: found } = server.address();
		server.close();
		await once(server, 'close');
		return found;
	}
}

// The next line that a process writes.
export async function firstLine(process) {
	const ended = once(process, 'exit').then(([status]) => { throw new Error(`${process.spawnfile} has ended with ${status}`); });
	ended.catch(() => {}); // later ends are nobody's concern here
	const [line] = await Promise.race([once(createInterface(process.stdout), 'line'), ended]);
	return line;
}
