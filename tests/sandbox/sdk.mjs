// Every function of the official SDK, against hpkv-sandbox over TLS. Run by sdk.test: SANDBOX is the binary, CERTS the directory
// with the test certificates, and NODE_EXTRA_CA_CERTS makes Node.js trust them.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import {
	AuthenticationError, BaseWebSocketClient, ConnectionError, ConnectionState, HPKVApiClient, HPKVClientFactory, HPKVError,
	HPKVOperation, HPKVSubscriptionClient, TimeoutError, WebsocketTokenManager, createWebSocket,
} from '@hpkv/websocket-client';
import { after, before, describe, firstLine, freePort, test } from './support.mjs';

const KEY = 'sandbox';
const FAST = { throttling: { enabled: false } };
// For a sandbox that is slow to restart: by default the SDK gives up after three attempts.
const PATIENT = { ...FAST, initialDelayBetweenReconnects: 20, maxDelayBetweenReconnects: 100, maxReconnectAttempts: 10000 };

class Sandbox {
	// Starts hpkv-sandbox with these arguments.
	static async start(args = [], port = undefined) {
		const sandbox = new Sandbox();
		sandbox.process = spawn(process.env.SANDBOX, ['--port', port ?? await freePort(), '--tls-cert', `${process.env.CERTS}/server.pem`,
			'--tls-key', `${process.env.CERTS}/server.key`, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
		sandbox.url = (await firstLine(sandbox.process)).replace('listening on ', '');
		sandbox.port = new URL(sandbox.url).port;
		return sandbox;
	}

	async stop(signal = 'SIGTERM') {
		const exited = once(this.process, 'exit');
		this.process.kill(signal);
		return (await exited)[0];
	}
}

// Every client that a test makes is ended with it: the SDK's timers would keep Node.js running.
const clients = [];
function keep(client) {
	clients.push(client);
	return client;
}

async function endClients() {
	for (const client of clients.splice(0)) {
		await client.disconnect();
		client.destroy();
	}
}

async function api(sandbox, config = FAST) {
	const client = keep(HPKVClientFactory.createApiClient(KEY, sandbox.url, config));
	await client.connect();
	return client;
}

// A connected subscription client; received holds its notifications, and until(n) waits for the nth.
async function subscriber(sandbox, tokenConfig, config = FAST) {
	const token = await new WebsocketTokenManager(KEY, sandbox.url).generateToken(tokenConfig);
	const client = keep(HPKVClientFactory.createSubscriptionClient(token, sandbox.url, config));
	const received = [];
	let wake = () => {};
	client.subscribe((notification) => {
		received.push(notification);
		wake();
	});
	client.until = async (n) => {
		while (received.length < n)
			await new Promise((resolve) => { wake = resolve; });
		return received;
	};
	await client.connect();
	return client;
}

function event(client, name) {
	return new Promise((resolve) => {
		const listener = (argument) => {
			client.off(name, listener);
			resolve(argument);
		};
		client.on(name, listener);
	});
}

function failsWith(code, message) {
	return (error) => {
		assert(error instanceof HPKVError, `${error}`);
		assert.equal(error.code, code);
		if (message)
			assert.match(error.message, message);
		return true;
	};
}

describe('HPKVApiClient: operations', () => {
	let sandbox, client;
	before(async () => {
		sandbox = await Sandbox.start();
		client = await api(sandbox);
	});
	after(async () => {
		await endClients();
		assert.equal(await sandbox.stop(), 0);
	});

	test('set and get', async () => {
		const set = await client.set('user:1', 'Jörg "😀"\u0000\n');
		assert.equal(set.code, 200);
		assert.equal(set.success, true);
		assert.equal(typeof set.message, 'string');
		const got = await client.get('user:1');
		assert.deepEqual([got.code, got.key, got.value], [200, 'user:1', 'Jörg "😀"\u0000\n']);
	});

	test('objects are stored as JSON and patched member by member', async () => {
		await client.set('doc', { name: 'A', nested: { x: 1, list: [1, 2] } });
		const patch = await client.set('doc', { nested: { y: 2, list: [3] }, more: true }, true);
		assert.deepEqual([patch.code, patch.success], [200, true]);
		assert.deepEqual(JSON.parse((await client.get('doc')).value),
			{ name: 'A', nested: { x: 1, list: [3], y: 2 }, more: true });
	});

	test('a patch of text appends', async () => {
		await client.set('log', 'Hello ');
		await client.set('log', 'World!', true);
		assert.equal((await client.get('log')).value, 'Hello World!');
	});

	test('delete', async () => {
		await client.set('gone', 'x');
		assert.equal((await client.delete('gone')).success, true);
		await assert.rejects(client.get('gone'), failsWith(404, /^Record not found$/));
		await assert.rejects(client.delete('gone'), failsWith(404, /^Record not found$/));
	});

	test('range', async () => {
		for (const i of [3, 1, 2, 5, 4])
			await client.set(`r:${i}`, `v${i}`);
		const all = await client.range('r:1', 'r:5');
		assert.deepEqual(all.records, [1, 2, 3, 4, 5].map((i) => ({ key: `r:${i}`, value: `v${i}` })));
		assert.deepEqual([all.count, all.truncated], [5, false]);
		const two = await client.range('r:1', 'r:5', { limit: 2 });
		assert.deepEqual([two.records.map((r) => r.key), two.count, two.truncated], [['r:1', 'r:2'], 2, true]);
	});

	test('atomicIncrement', async () => {
		const first = await client.atomicIncrement('n', 5);
		assert.deepEqual([first.success, first.newValue], [true, 5]);
		assert.equal((await client.atomicIncrement('n', -7)).newValue, -2);
		await client.set('text', 'x');
		await assert.rejects(client.atomicIncrement('text', 1), failsWith(400));
	});

	test('the service refuses what is empty or too long', async () => {
		await assert.rejects(client.set('', 'x'), failsWith(400));
		await assert.rejects(client.set('k', ''), failsWith(400));
		await assert.rejects(client.set('k', 'v'.repeat(3073)), failsWith(400));
		await assert.rejects(client.get('k'.repeat(513)), failsWith(400));
	});

	test('a thousand requests at once are answered each to its own', async () => {
		const asked = Array.from({ length: 1000 }, (_, i) => i);
		await Promise.all(asked.map((i) => client.set(`many:${i}`, `${i}`)));
		const got = await Promise.all(asked.map((i) => client.get(`many:${i}`)));
		assert.deepEqual(got.map((answer) => Number(answer.value)), asked);
		assert.equal(client.getConnectionStats().messagesPending, 0);
	});
});

describe('HPKVApiClient: connections', () => {
	let sandbox;
	before(async () => { sandbox = await Sandbox.start(['--api-key', KEY, '--api-key', 'second']); });
	after(async () => { assert.equal(await sandbox.stop(), 0); });

	test('states and events', async () => {
		const client = keep(new HPKVApiClient(KEY, sandbox.url, FAST));
		assert(client instanceof BaseWebSocketClient);
		assert.equal(client.getConnectionState(), ConnectionState.DISCONNECTED);
		const connected = event(client, 'connected');
		const connecting = client.connect();
		assert.equal(client.getConnectionState(), ConnectionState.CONNECTING);
		await Promise.all([connecting, client.connect(), connected]);
		assert.equal(client.getConnectionState(), ConnectionState.CONNECTED);
		const stats = client.getConnectionStats();
		assert.deepEqual([stats.isConnected, stats.messagesPending, stats.throttling], [true, 0, null]);
		await client.disconnect();
		assert.equal(client.getConnectionState(), ConnectionState.DISCONNECTED);
		await assert.rejects(client.get('x'), /not open/);
		await client.connect();
		await client.set('again', '1');
		await endClients();
	});

	test('every form of the base URL', async () => {
		const { port } = sandbox;
		for (const url of [`https://localhost:${port}`, `wss://localhost:${port}`, `wss://localhost:${port}/ws`,
			`https://127.0.0.1:${port}`]) {
			const client = keep(HPKVClientFactory.createApiClient(KEY, url, FAST));
			await client.connect();
			await client.set('url', url);
			const token = await new WebsocketTokenManager(KEY, url).generateToken({});
			assert.equal(token.split('.').length, 3);
		}
		await endClients();
	});

	test('each API key sees the same records', async () => {
		const first = await api(sandbox);
		const second = keep(HPKVClientFactory.createApiClient('second', sandbox.url, FAST));
		await second.connect();
		await first.set('shared', 'x');
		assert.equal((await second.get('shared')).value, 'x');
		await endClients();
	});

	test('a wrong key is refused', async () => {
		const client = keep(HPKVClientFactory.createApiClient('wrong', sandbox.url, FAST));
		const error = event(client, 'error');
		await assert.rejects(client.connect(), ConnectionError);
		assert((await error) instanceof ConnectionError);
		await endClients();
	});

	test('disconnecting fails what is pending', async () => {
		const slow = await Sandbox.start(['--delay-ms', '60000']);
		const client = await api(slow);
		const pending = assert.rejects(client.get('x'), ConnectionError);
		await new Promise(setImmediate);
		assert.equal(client.getConnectionStats().messagesPending, 1);
		await client.disconnect();
		await pending;
		await endClients();
		assert.equal(await slow.stop(), 0);
	});

	test('an operation times out', async () => {
		const slow = await Sandbox.start(['--delay-ms', '60000']);
		const client = await api(slow);
		await assert.rejects(client.get('x', 50), TimeoutError);
		await endClients();
		assert.equal(await slow.stop(), 0);
	});

	test('connecting times out where nobody answers', async () => {
		const mute = net.createServer().listen(0, '127.0.0.1');
		await once(mute, 'listening');
		const sockets = [];
		mute.on('connection', (socket) => sockets.push(socket.on('error', () => {})));
		const client = keep(HPKVClientFactory.createApiClient(KEY, `https://127.0.0.1:${mute.address().port}`,
			{ ...FAST, connectionTimeout: 100 }));
		const connecting = client.connect();
		const { ws } = client;
		await assert.rejects(connecting, TimeoutError);
		ws.on('error', () => {}); // the SDK no longer listens
		sockets.forEach((socket) => socket.destroy());
		mute.close();
		await endClients();
	});

	test('a lost connection fails its requests and is made again', async () => {
		let slow = await Sandbox.start(['--delay-ms', '60000']);
		const client = await api(slow, PATIENT);
		const pending = assert.rejects(client.get('x'), ConnectionError);
		const lost = event(client, 'disconnected'), reconnecting = event(client, 'reconnecting');
		const { port } = slow;
		await slow.stop('SIGKILL');
		await pending;
		assert.equal((await lost).gracefully, false);
		assert.equal((await reconnecting).attempt, 1);
		const back = event(client, 'connected');
		slow = await Sandbox.start([], port);
		await back;
		await client.set('after', 'x');
		await endClients();
		assert.equal(await slow.stop(), 0);
	});

	test('reconnecting is given up when nobody is there', async () => {
		const short = await Sandbox.start();
		const client = await api(short, { ...FAST, initialDelayBetweenReconnects: 1, maxReconnectAttempts: 1 });
		const failed = event(client, 'reconnectFailed');
		await short.stop();
		assert((await failed) instanceof ConnectionError);
		await endClients();
	});

	test('a server that is stopped says goodbye', async () => {
		const short = await Sandbox.start();
		const client = await api(short, { ...FAST, initialDelayBetweenReconnects: 1, maxReconnectAttempts: 1 });
		const lost = event(client, 'disconnected'), failed = event(client, 'reconnectFailed');
		assert.equal(await short.stop(), 0);
		await lost;
		await failed; // an attempt that nobody listens to any more would end Node.js
		await endClients();
	});

	test('createWebSocket', async () => {
		const ws = createWebSocket(`${sandbox.url.replace('https', 'wss')}/ws?apiKey=${KEY}`);
		await new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject));
		const answer = new Promise((resolve) => ws.on('message', resolve));
		ws.send(JSON.stringify({ op: HPKVOperation.SET, key: 'raw', value: 'x', messageId: 77 }));
		assert.equal((await answer).messageId, 77);
		const closed = new Promise((resolve) => ws.on('close', resolve));
		ws.close(1000, 'done');
		assert.equal(await closed, 1000);
	});
});

describe('throttling and the rate limit', () => {
	let sandbox;
	before(async () => { sandbox = await Sandbox.start(['--rate', '5']); });
	after(async () => { assert.equal(await sandbox.stop(), 0); });

	test('429 beyond the rate, and the SDK slows down', async () => {
		const client = await api(sandbox);
		const results = await Promise.allSettled(Array.from({ length: 100 }, () => client.set('x', '1')));
		const refused = results.filter((result) => result.status === 'rejected');
		assert(refused.length >= 50 && refused.length <= 95, `${refused.length} were refused`);
		refused.forEach((result) => failsWith(429)(result.reason));
		await new Promise(setImmediate);
		assert(client.getThrottlingStatus().metrics.currentRate < 10);
		await endClients();
	});

	test('tokens count as well', async () => {
		const manager = new WebsocketTokenManager(KEY, sandbox.url);
		let refused;
		while (!refused) { // thirty may take seconds on a busy machine
			const results = await Promise.allSettled(Array.from({ length: 30 }, () => manager.generateToken({})));
			refused = results.find((result) => result.status === 'rejected');
		}
		assert(refused.reason instanceof HPKVError);
		assert.match(refused.reason.message, /429/);
	});

	test('the SDK throttles by itself', async () => {
		const calm = await Sandbox.start();
		const client = await api(calm, { throttling: { enabled: true, rateLimit: 50 } });
		assert.deepEqual(client.getThrottlingStatus(),
			{ enabled: true, config: { enabled: true, rateLimit: 50 }, metrics: { currentRate: 50, queueLength: 0 } });
		const all = Promise.all(Array.from({ length: 10 }, (_, i) => client.set(`t:${i}`, 'x')));
		assert(client.getConnectionStats().throttling.queueLength > 0);
		assert.equal((await all).length, 10);
		client.updateThrottlingConfig({ enabled: false });
		assert.equal(client.getThrottlingStatus().enabled, false);
		await endClients();
		assert.equal(await calm.stop(), 0);
	});
});

describe('HPKVSubscriptionClient and WebsocketTokenManager', () => {
	let sandbox, writer;
	before(async () => {
		sandbox = await Sandbox.start();
		writer = await api(sandbox);
	});
	after(async () => {
		await endClients();
		assert.equal(await sandbox.stop(), 0);
	});

	test('changes by others are told, and nothing else', async () => {
		const client = await subscriber(sandbox, { subscribePatterns: ['s:1', 'pre:*', '*:end', 'a*z', '^re[0-9]+$'] });
		assert(client instanceof HPKVSubscriptionClient);
		const started = Date.now();
		await writer.set('other', 'x');
		await writer.set('s:12', 'x');
		await writer.set('xpre:1', 'x');
		await writer.set('re1x', 'x');
		const keys = ['s:1', 'pre:', 'pre:1', 'x:end', 'abz', 're42'];
		for (const key of keys)
			await writer.set(key, `v ${key}`);
		await writer.delete('s:1');
		await writer.atomicIncrement('pre:n', 4);
		await writer.set('pre:1', '!', true);
		const got = await client.until(keys.length + 3);
		assert.deepEqual(got.map(({ key, value }) => [key, value]),
			[...keys.map((key) => [key, `v ${key}`]), ['s:1', null], ['pre:n', '4'], ['pre:1', 'v pre:1!']]);
		for (const { type, timestamp } of got)
			assert(type === 'notification' && timestamp >= started && timestamp <= Date.now());
	});

	test('its own changes are told as well, once, by the older name too', async () => {
		const client = await subscriber(sandbox, { subscribeKeys: ['own:*', 'own:1'], subscribePatterns: ['own:1'] });
		await client.set('own:1', 'a');
		await client.set('own:2', 'b');
		const got = await client.until(2);
		assert.deepEqual(got.map(({ key, value }) => [key, value]), [['own:1', 'a'], ['own:2', 'b']]);
	});

	test('changes by REST are told', async () => {
		const client = await subscriber(sandbox, { subscribePatterns: ['rest:*'] });
		const headers = { 'x-api-key': KEY, 'content-type': 'application/json' };
		const post = (path, body) => fetch(sandbox.url + path, { method: 'POST', headers, body: JSON.stringify(body) });
		assert((await post('/record', { key: 'rest:1', value: 'x' })).ok);
		assert((await post('/record', { key: 'rest:1', value: 'y', partialUpdate: true })).ok);
		assert((await post('/record/atomic', { key: 'rest:n', increment: 3 })).ok);
		assert((await fetch(`${sandbox.url}/record/rest:1`, { method: 'DELETE', headers })).ok);
		const got = await client.until(4);
		assert.deepEqual(got.map(({ key, value }) => [key, value]),
			[['rest:1', 'x'], ['rest:1', 'xy'], ['rest:n', '3'], ['rest:1', null]]);
	});

	test('subscribe and unsubscribe callbacks', async () => {
		const client = await subscriber(sandbox, { subscribePatterns: ['cb'] });
		let calls = 0;
		const id = client.subscribe(() => { calls++; });
		assert.equal(typeof id, 'string');
		await writer.set('cb', '1');
		await client.until(1);
		client.unsubscribe(id);
		await writer.set('cb', '2');
		await client.until(2);
		assert.equal(calls, 1);
	});

	test('the access pattern bounds the operations, not the notifications', async () => {
		const client = await subscriber(sandbox, { subscribePatterns: ['deny:x'], accessPattern: '^(user|product):\\d+$' });
		await client.set('user:1', 'x');
		assert.equal((await client.get('user:1')).value, 'x');
		assert.equal((await client.atomicIncrement('product:7', 1)).newValue, 1);
		for (const forbidden of [
			() => client.get('deny:x'), () => client.set('user:', 'x'), () => client.set('deny:x', 'x', true),
			() => client.delete('deny:x'), () => client.atomicIncrement('deny:x', 1), () => client.range('deny:a', 'deny:z'),
		])
			await assert.rejects(forbidden, failsWith(403));
		await writer.set('deny:x', 'seen');
		assert.equal((await client.until(1))[0].value, 'seen');
	});

	test('a connection by API key is told nothing', async () => {
		const seen = [];
		const client = keep(new HPKVSubscriptionClient('none', sandbox.url, FAST));
		client.buildConnectionUrl = () => `${client.baseUrl}?apiKey=${KEY}`;
		client.subscribe((notification) => seen.push(notification));
		await client.connect();
		await client.set('quiet', 'x');
		await client.get('quiet');
		assert.deepEqual(seen, []);
	});

	test('bad tokens are refused', async () => {
		const token = await new WebsocketTokenManager(KEY, sandbox.url).generateToken({ subscribePatterns: ['x'] });
		for (const bad of ['nonsense', '', `${token}x`, token.replace(/\.[^.]*$/, '.')])
			await assert.rejects(keep(new HPKVSubscriptionClient(bad, sandbox.url, FAST)).connect(), ConnectionError);
	});

	test('a token ends its connection when it expires', async () => {
		const short = await Sandbox.start(['--token-ttl', '1']);
		let client;
		while (!client) { // a busy machine may take longer than it lives
			client = await subscriber(short, { subscribePatterns: ['x'] }, { ...FAST, maxReconnectAttempts: 1,
				initialDelayBetweenReconnects: 1 }).catch(() => null);
		}
		const failed = event(client, 'reconnectFailed');
		await event(client, 'disconnected');
		await failed; // nor does it let anybody in again
		await endClients();
		assert.equal(await short.stop(), 0);
		writer = await api(sandbox);
	});

	test('a token lives on when the service is started anew', async () => {
		let service = await Sandbox.start();
		const client = await subscriber(service, { subscribePatterns: ['x'] }, PATIENT);
		const { port } = service;
		const gone = event(client, 'reconnecting');
		await service.stop();
		await gone;
		const back = event(client, 'connected');
		service = await Sandbox.start([], port);
		await back;
		await client.set('x', 'new');
		assert.equal((await client.until(1))[0].value, 'new');
		await endClients();
		assert.equal(await service.stop(), 0);
		writer = await api(sandbox);
	});

	test('token requests that fail', async () => {
		assert.throws(() => new WebsocketTokenManager('', sandbox.url), AuthenticationError);
		assert.throws(() => new WebsocketTokenManager(KEY, ''), HPKVError);
		await assert.rejects(new WebsocketTokenManager('wrong', sandbox.url).generateToken({}), AuthenticationError);
		const manager = new WebsocketTokenManager(KEY, sandbox.url);
		for (const bad of [{ subscribePatterns: ['^('] }, { accessPattern: '[' }, { subscribePatterns: 'x' }, { subscribePatterns: [7] }])
			await assert.rejects(manager.generateToken(bad), /400/);
		await assert.rejects(new WebsocketTokenManager(KEY, 'https://localhost:1').generateToken({}), /No response/);
	});

	test('a token with a thousand keys', async () => {
		const keys = Array.from({ length: 1000 }, (_, i) => `many:keys:${i}`);
		const client = await subscriber(sandbox, { subscribePatterns: keys });
		await writer.set('many:keys:999', 'x');
		assert.equal((await client.until(1))[0].key, 'many:keys:999');
	});
});
