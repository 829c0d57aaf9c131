// Programs that know nothing of hpkvd use it while the service has outages: is there an error that hpkvd could have spared them?
//
//     node outages.mjs [MINUTES] [SEED]        a quarter of a minute without an argument; HPKVD and SANDBOX are the binaries
//
// HPKV's published clients, fetch, and a stream of events work through the gateway at their own pace, while the sandbox is killed
// and started again, or stopped for a while, at random moments. It loses its records when it is killed, and some are written to it
// before hpkvd is back. An outage takes less time than a request has. So this is all that a program may see of it:
//
// - A write that was in flight when the sandbox was killed has an unknown outcome (504): nobody can know.
// - What was written before the sandbox was killed is gone.
//
// Everything else is a failure: any other error, a lost connection to hpkvd, an answer that is not the last value written, a
// subscriber that is not told a change, is told it twice, or does not know the values after the outage.
import assert from 'node:assert/strict';
import http from 'node:http';
import { HPKVRestClient } from '@hpkv/rest-client';
import { HPKVClientFactory, WebsocketTokenManager } from '@hpkv/websocket-client';
import { LogLevel, multiplayer } from '@hpkv/zustand-multiplayer';
import { createStore } from 'zustand/vanilla';
import { Hpkvd, LOCAL_KEY, Sandbox } from './daemon.mjs';

const minutes = Number(process.argv[2] || 0.25), seed = Number(process.argv[3] || Date.now() % 1000000);
const OUTAGE_MS = 3000; // at most
const PATIENCE_MS = 60000; // for subscribers to know what is there after an outage; machines stand still at times
const FAST = { throttling: { enabled: false } };
const SHARED = ['shared:1', 'shared:2', 'shared:3'];

let state = seed;
function random() { // mulberry32: a seed repeats the outages
	state = (state + 0x6d2b79f5) | 0;
	let t = Math.imul(state ^ (state >>> 15), 1 | state);
	t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
	return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}

const sandbox = await new Sandbox().start();
const hpkvd = await new Hpkvd().start(sandbox, '', { backoff_min: '250ms', backoff_max: '2s', request_timeout: '10s' });
const begun = Date.now();
const sum = { requests: 0, unknown: 0, kills: 0, stops: 0, notifications: 0, longest: 0 };
const faults = [];
let epoch = 0; // how often the sandbox has been killed
let ended = 0; // when hpkvd has certainly seen it dead
let over = false;
let calm = Promise.resolve(); // while pending, nobody writes what subscribers compare

function sleep(ms) {
	return new Promise((resolve) => { setTimeout(resolve, ms); });
}

function fault(text) {
	faults.push(text);
	console.log(`# at ${((Date.now() - begun) / 1000).toFixed(1)} s: ${text}`);
}

// ---- requests ----

// Makes a request and returns its answer, or null where that is unknown or the record may be lost.
async function ask(program, what, request, { writes = false, mayMiss = false } = {}) {
	const before = epoch, since = Date.now();
	sum.requests++;
	try {
		return await request();
	} catch (error) {
		const code = error.status ?? error.code;
		if (code === 504 && writes && (epoch !== before || since <= ended)) {
			sum.unknown++;
			return null;
		}
		if (!(code === 404 && (mayMiss || epoch !== before || since <= ended)))
			fault(`${program}: ${what}: ${code} ${error.message} after ${Date.now() - since} ms`);
		return null;
	} finally {
		sum.longest = Math.max(sum.longest, Date.now() - since);
	}
}

// One program: writes and reads its own keys until the end. c has the operations of the SDK.
async function work(name, c, pause) {
	for (let i = 1; !over; i++) {
		const key = `${name}:${i % 5}`, at = epoch, began = Date.now(), value = `${i}`;
		const written = await ask(name, 'set', () => c.set(key, value), { writes: true });
		const read = await ask(name, 'get', () => c.get(key), { mayMiss: !written });
		if (written && read && epoch === at && began > ended && read.value !== value)
			fault(`${name}: ${key} is ${read.value}, and was set to ${value}`);
		if (i % 7 === 0)
			await ask(name, 'increment', () => c.atomicIncrement(`${name}:n`, 1), { writes: true });
		if (i % 11 === 0)
			await ask(name, 'patch', () => c.set(`${name}:doc`, { [`m${i % 3}`]: i }, true), { writes: true });
		if (i % 5 === 0)
			await ask(name, 'range', () => c.range(`${name}:`, `${name}:~`, c.limit ?? 100));
		if (i % 13 === 0)
			await ask(name, 'delete', () => c.delete(key), { writes: true, mayMiss: true });
		await sleep(pause);
	}
}

// Connections to hpkvd are never lost.
function keep(name, client) {
	client.on('disconnected', () => over || fault(`${name}: the connection to hpkvd was lost`));
	client.on('error', (error) => over || fault(`${name}: ${error.message}`));
	return client;
}

async function sdkProgram(name, options, pause) {
	const client = keep(name, HPKVClientFactory.createApiClient(LOCAL_KEY, hpkvd.url, options));
	await client.connect();
	await work(name, {
		set: (...a) => client.set(...a), get: (...a) => client.get(...a), delete: (...a) => client.delete(...a),
		atomicIncrement: (...a) => client.atomicIncrement(...a), range: (from, to, limit) => client.range(from, to, { limit }),
	}, pause);
	await client.disconnect();
	client.destroy();
}

async function restProgram(name, pause) {
	await work(name, new HPKVRestClient(hpkvd.url, hpkvd.url, LOCAL_KEY), pause);
}

// HTTP on the Unix socket, one connection for all requests.
async function socketProgram(name, pause) {
	const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
	const request = (method, path, body) => new Promise((resolve, reject) => {
		const r = http.request({ socketPath: hpkvd.socket, agent, method, path, headers: { 'content-type': 'application/json' } }, (response) => {
			let text = '';
			response.on('data', (data) => { text += data; });
			response.on('end', () => {
				const answer = JSON.parse(text);
				if (response.statusCode === 200)
					resolve(answer);
				else
					reject(Object.assign(new Error(answer.error), { status: response.statusCode }));
			});
		});
		r.on('error', reject);
		r.end(body && JSON.stringify(body));
	});
	await work(name, {
		set: (key, value, partialUpdate) => request('POST', '/record', { key, value: typeof value === 'string' ? value : JSON.stringify(value), partialUpdate }),
		get: (key) => request('GET', `/record/${encodeURIComponent(key)}`),
		delete: (key) => request('DELETE', `/record/${encodeURIComponent(key)}`),
		atomicIncrement: (key, increment) => request('POST', '/record/atomic', { key, increment }),
		range: (from, to, limit) => request('GET', `/records?startKey=${encodeURIComponent(from)}&endKey=${encodeURIComponent(to)}&limit=${limit}`),
	}, pause);
	agent.destroy();
}

// ---- subscribers ----

// What a subscriber was told last of each key, and whether the numbers in "ticks" are told one by one.
class Told {
	constructor(name) {
		this.name = name;
		this.values = new Map();
		this.tick = null;
	}

	take({ key, value, resync, initial }) {
		sum.notifications++;
		if (key === 'ticks')
			this.takeTick(value, resync || initial);
		if (this.values.get(key) === value && value !== null && key === 'ticks')
			fault(`${this.name}: was told twice of ${value}`);
		this.values.set(key, value);
	}

	// The sandbox may be killed between a change and its notification, and what hpkvd reads again is the latest.
	takeTick(value, anew) {
		const [at, n] = value === null ? [null, null] : value.split(' ').map(Number);
		if (value !== null && !anew && this.tick && this.tick.at === at && n !== this.tick.n + 1)
			fault(`${this.name}: was told of change ${n} behind ${this.tick.n}`);
		this.tick = value === null ? null : { at, n };
	}
}

async function sdkSubscriber(name, wish) {
	const told = new Told(name);
	const token = await new WebsocketTokenManager(LOCAL_KEY, hpkvd.url).generateToken(wish);
	const client = keep(name, HPKVClientFactory.createSubscriptionClient(token, hpkvd.url));
	client.subscribe((notification) => told.take(notification));
	await client.connect();
	told.end = () => client.disconnect();
	return told;
}

// Server-sent events, as EventSource reads them.
async function eventSubscriber(name, query) {
	const told = new Told(name), abort = new AbortController();
	const response = await fetch(`${hpkvd.url}/hpkvd/watch?${query}`, { headers: { 'x-api-key': LOCAL_KEY }, signal: abort.signal });
	assert.equal(response.status, 200);
	told.end = () => abort.abort();
	(async () => {
		let text = '';
		for await (const part of response.body) {
			text += Buffer.from(part).toString();
			for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
				const [, type, data] = /^event: (.*)\ndata: (.*)$/.exec(text.slice(0, end)) ?? [];
				if (type === 'notification')
					told.take(JSON.parse(data));
			}
		}
		throw new Error('the stream has ended');
	})().catch((error) => over || fault(`${name}: ${error.message}`));
	return told;
}

async function ticker() {
	const client = keep('ticker', HPKVClientFactory.createApiClient(LOCAL_KEY, hpkvd.url, FAST));
	await client.connect();
	for (let n = 1; !over; n++) {
		await calm;
		const at = epoch;
		await ask('ticker', 'set', () => client.set('ticks', `${at} ${n}`), { writes: true });
		await sleep(50);
	}
	await client.disconnect();
	client.destroy();
}

async function stores() {
	const initial = (set) => ({ count: 0, set });
	const made = [];
	for (let i = 0; i < 2; i++)
		made.push(createStore(multiplayer(initial, { namespace: 'outages', apiBaseUrl: hpkvd.url, apiKey: LOCAL_KEY, logLevel: LogLevel.NONE })));
	const eventually = async (what, done) => {
		const until = Date.now() + PATIENCE_MS;
		while (!done() && Date.now() < until)
			await sleep(20);
		if (!done())
			fault(`zustand: ${what}`);
	};
	for (const store of made)
		await eventually('a store has not loaded', () => store.getState().multiplayer.hasHydrated);
	for (let n = 1; !over; n++) {
		const at = epoch;
		made[n % 2].getState().set({ count: n });
		const until = Date.now() + 2 * OUTAGE_MS;
		while (made[(n + 1) % 2].getState().count !== n && epoch === at && Date.now() < until)
			await sleep(20);
		sum.shared = (sum.shared ?? 0) + (made[(n + 1) % 2].getState().count === n);
		await sleep(200);
	}
	for (const store of made)
		await store.multiplayer.destroy();
}

// ---- outages ----

// What the sandbox holds of these keys, asked directly.
async function held(keys) {
	const values = new Map();
	for (const key of keys) {
		const response = await fetch(`${sandbox.url}/record/${encodeURIComponent(key)}`, { headers: { 'x-api-key': sandbox.key } });
		values.set(key, response.ok ? (await response.json()).value : null);
	}
	return values;
}

// All subscribers know what is there.
async function settle(subscribers, keys) {
	const until = Date.now() + PATIENCE_MS;
	let wrong;
	do {
		const values = await held(keys);
		wrong = subscribers.flatMap((told) => [...values].filter(([key, value]) => (told.values.get(key) ?? null) !== value)
			.map(([key, value]) => `${told.name}: believes ${key} to be ${told.values.get(key)}, and it is ${value}`));
		await sleep(20);
	} while (wrong.length && Date.now() < until);
	wrong.forEach(fault);
}

async function kill(n) {
	epoch++;
	ended = Infinity;
	sum.kills++;
	await sandbox.stop();
	ended = Date.now() + 2000;
	await sleep(random() * OUTAGE_MS);
	await sandbox.start(sandbox.port);
	for (const key of SHARED) {
		if (random() < 0.5)
			await sandbox.put(key, `outage ${n}`);
	}
}

async function stall() {
	sum.stops++;
	sandbox.process.kill('SIGSTOP');
	await sleep(random() * OUTAGE_MS);
	sandbox.process.kill('SIGCONT');
}

async function outages(subscribers, writer) {
	const until = begun + minutes * 60000;
	for (let n = 1; Date.now() < until; n++) {
		await sleep(200 + random() * (n % 3 ? 2000 : 8000));
		let free;
		calm = new Promise((resolve) => { free = resolve; });
		if (random() < 0.7)
			await kill(n);
		else
			await stall();
		await settle(subscribers, SHARED);
		for (const key of SHARED)
			await ask('writer', 'set', () => writer.set(key, `after outage ${n}`), { writes: true });
		await settle(subscribers, SHARED);
		free();
	}
}

// ---- all of it ----

console.log(`# seed ${seed}, ${minutes} minutes, hpkvd is process ${hpkvd.process.pid}`);
const subscribers = [
	await sdkSubscriber('sdk-subscriber', { subscribePatterns: [...SHARED, 'ticks'] }),
	await sdkSubscriber('sdk-subscriber-2', { subscribeKeys: [...SHARED, 'ticks'], accessPattern: '^shared:' }),
	await eventSubscriber('events', [...SHARED, 'ticks'].map((key) => `key=${encodeURIComponent(key)}`).join('&') + '&initial=true'),
];
const writer = keep('writer', HPKVClientFactory.createApiClient(LOCAL_KEY, hpkvd.url, FAST));
await writer.connect();
const programs = [
	sdkProgram('sdk', {}, 50), sdkProgram('sdk-fast', FAST, 5), restProgram('rest', 20), restProgram('rest-slow', 700),
	socketProgram('socket', 20), ticker(), stores(),
];
await outages(subscribers, writer);
over = true;
const waited = setTimeout(() => { console.log('# programs do not end'); process.exit(1); }, PATIENCE_MS);
await Promise.all(programs);
clearTimeout(waited);
for (const told of subscribers)
	await told.end();
await writer.disconnect();
console.log('1..1');
console.log('#', Object.entries(sum).map(([name, n]) => `${name} ${n}`).join(', '));
console.log(`${faults.length ? 'not ok' : 'ok'} 1 - no error that hpkvd could have spared`);
await hpkvd.stop();
await sandbox.stop();
process.exit(faults.length ? 1 : 0);
