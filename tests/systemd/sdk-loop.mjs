// A program that uses HPKV's published client through the gateway, as doc/gateway.md tells one to: it counts, and is told of its
// count, until its stdin ends. Arguments: the gateway's address, a local key. Prints a line once it is connected, and at the end
// what it has seen, as JSON. Copied to where @hpkv/websocket-client is installed (tests/npm/install.sh).
import { once } from 'node:events';
import { ConnectionState, HPKVClientFactory, WebsocketTokenManager } from '@hpkv/websocket-client';

const [url, key] = process.argv.slice(2);
const FAST = { throttling: { enabled: false } };
const LANES = 4, PAUSE = 10;
const started = Date.now();
const seen = { counted: 0, repeated: 0, reconnects: 0, told: 0, longest: 0, faults: [] };

function end() {
	process.stdout.write(`${JSON.stringify(seen)}\n`, () => process.exit(0));
}

// Nothing that comes after it would say more.
function fault(text) {
	seen.faults.push(text);
	end();
}

function pause(ms) {
	return new Promise((resolve) => { setTimeout(resolve, ms); });
}

// The client gives up after three attempts that failed in a row.
function watch(client, name) {
	const why = [];
	client.on('error', (e) => { why.push(`${((Date.now() - started) / 1000).toFixed(1)} s: ${e.message}`); });
	client.on('connected', () => { why.length = 0; });
	client.on('reconnecting', () => { seen.reconnects++; });
	client.on('reconnectFailed', (e) => { fault(`${name} gives up: ${e.message}: ${why.join('; ')}`); });
	return client;
}

// Not executed: hpkvd says so (503), has said that it ends (1001, behind all its answers), or the client could not send it.
function wasNotExecuted(e) {
	return e.code === 503 || /code: 1001\b|WebSocket is not open/.test(e.message);
}

async function sure(client, request) {
	const begin = Date.now();
	for (;;) {
		while (client.getConnectionState() !== ConnectionState.CONNECTED)
			await pause(PAUSE);
		try {
			const answer = await request();
			seen.longest = Math.max(seen.longest, Date.now() - begin);
			return answer;
		} catch (e) {
			if (!wasNotExecuted(e))
				throw e;
			seen.repeated++;
			await pause(PAUSE);
		}
	}
}

const api = watch(HPKVClientFactory.createApiClient(key, url, FAST), 'the client');
await api.connect();
const token = await new WebsocketTokenManager(key, url).generateToken({ subscribePatterns: ['sdk'] });
const subscriber = watch(HPKVClientFactory.createSubscriptionClient(token, url, FAST), 'the subscriber');
let last = 0;
subscriber.subscribe(({ value }) => {
	seen.told++;
	if (Number(value) <= last)
		fault(`was told ${value} behind ${last}`);
	last = Number(value);
});
await subscriber.connect();

let over = false;
async function lane() {
	while (!over) {
		try {
			await sure(api, () => api.atomicIncrement('sdk', 1));
			seen.counted++;
		} catch (e) {
			fault(`${e.name}: ${e.message}`);
		}
		await pause(PAUSE);
	}
}

const lanes = Array.from({ length: LANES }, lane);
process.stdout.write('connected\n');
process.stdin.resume();
await once(process.stdin, 'end');
over = true;
await Promise.all(lanes);
// What was changed while it was not connected it may have missed; not what comes now.
while (subscriber.getConnectionState() !== ConnectionState.CONNECTED)
	await pause(PAUSE);
for (let count = 0; last < count || !count; await pause(PAUSE)) {
	if (last >= count) {
		count = (await sure(api, () => api.atomicIncrement('sdk', 1))).newValue;
		seen.counted++;
	}
}
end();
