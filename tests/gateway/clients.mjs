// HPKV's published clients against hpkvd in front of hpkv-sandbox, with nothing but the base URL changed, and across outages of
// the sandbox. Run by clients.test: HPKVD and SANDBOX are the binaries.
import assert from 'node:assert/strict';
import { HPKVRestClient } from '@hpkv/rest-client';
import { ConnectionError, HPKVApiClient, HPKVClientFactory, HPKVError, WebsocketTokenManager } from '@hpkv/websocket-client';
import { LogLevel, multiplayer } from '@hpkv/zustand-multiplayer';
import { createStore } from 'zustand/vanilla';
import { Hpkvd, LOCAL_KEY, Sandbox } from './daemon.mjs';
import { after, before, describe, test } from './support.mjs';

const FAST = { throttling: { enabled: false } };

// The multiplayer package leaves timers behind when its stores are destroyed: nobody is to wait for those.
for (const name of ['setInterval', 'setTimeout']) {
	const set = globalThis[name];
	globalThis[name] = (callback, ms, ...rest) => {
		const timer = set(callback, ms, ...rest);
		return name === 'setInterval' || ms > 60000 ? timer.unref() : timer;
	};
}

let sandbox, hpkvd;
const clients = [];
function keep(client) {
	client.on('reconnecting', () => { client.hasReconnected = true; });
	clients.push(client);
	return client;
}

async function endClients() {
	for (const client of clients.splice(0)) {
		assert(!client.hasReconnected, 'the connection to hpkvd was lost');
		await client.disconnect();
		client.destroy();
	}
}

async function api(url = hpkvd.url, key = LOCAL_KEY) {
	const client = keep(HPKVClientFactory.createApiClient(key, url, FAST));
	await client.connect();
	return client;
}

// A connected subscription client; until(done) waits for a notification of which that is true.
async function subscriber(config) {
	const token = await new WebsocketTokenManager(LOCAL_KEY, hpkvd.url).generateToken(config);
	const client = keep(HPKVClientFactory.createSubscriptionClient(token, hpkvd.url, FAST));
	client.received = [];
	let wake = () => {};
	client.subscribe((notification) => {
		client.received.push(notification);
		wake();
	});
	client.until = async (done) => {
		while (!client.received.some(done))
			await new Promise((resolve) => { wake = resolve; });
		return client.received.find(done);
	};
	await client.connect();
	return client;
}

function failsWith(code) {
	return (error) => error instanceof HPKVError && error.code === code;
}

async function allOperations(client) {
	assert.equal((await client.set('user:1', 'Jörg "😀"\u0000\n')).success, true);
	assert.equal((await client.get('user:1')).value, 'Jörg "😀"\u0000\n');
	await client.set('doc', { a: 1, b: { c: 2 } });
	await client.set('doc', { b: { d: 3 } }, true);
	assert.deepEqual(JSON.parse((await client.get('doc')).value), { a: 1, b: { c: 2, d: 3 } });
	assert.equal((await client.atomicIncrement(`n:${Math.random()}`, 4)).newValue, 4);
	for (const i of [1, 2, 3])
		await client.set(`r:${i}`, `v${i}`);
	const range = await client.range('r:1', 'r:3', { limit: 2 });
	assert.deepEqual([range.records.map((record) => record.key), range.count, range.truncated], [['r:1', 'r:2'], 2, true]);
	assert.equal((await client.delete('r:1')).success, true);
	await assert.rejects(client.get('r:1'), failsWith(404));
	await assert.rejects(client.set('k', ''), failsWith(400));
	const many = Array.from({ length: 500 }, (_, i) => i);
	await Promise.all(many.map((i) => client.set(`many:${i}`, `${i}`)));
	assert.deepEqual((await Promise.all(many.map((i) => client.get(`many:${i}`)))).map((answer) => Number(answer.value)), many);
}

// One of each for all of them.
describe('unchanged clients', { concurrency: 1 }, () => {
	before(async () => {
		sandbox = await new Sandbox().start();
		hpkvd = await new Hpkvd().start(sandbox);
	});
	after(async () => {
		await hpkvd.stop();
		await sandbox.stop();
	});

	describe('@hpkv/websocket-client', () => {
		test('HPKVApiClient over TCP', async () => {
			await allOperations(await api());
			await endClients();
		});

		test('HPKVApiClient over the Unix socket', async (t) => {
			if (Number(process.versions.node.split('.')[0]) >= 22) {
				t.skip('Node.js 22 and later have a WebSocket of their own, which knows no ws+unix:');
				return;
			}
			await allOperations(await api(`ws+unix:${hpkvd.socket}:/ws`, 'ignored'));
			await endClients();
		});

		test('a wrong key is refused', async () => {
			const client = new HPKVApiClient('a-wrong-local-key-of-some-length', hpkvd.url, { ...FAST, maxReconnectAttempts: 1 });
			await assert.rejects(client.connect(), ConnectionError);
			client.destroy();
			await assert.rejects(new WebsocketTokenManager('a-wrong-local-key-of-some-length', hpkvd.url).generateToken({}));
		});

		test('a request waits while the service is away, and none fails', async () => {
			const client = await api();
			await client.set('before', '1');
			const { port } = sandbox;
			await sandbox.stop();
			const waiting = client.set('during', '2');
			await sandbox.start(port);
			assert.equal((await waiting).success, true);
			assert.equal((await client.get('during')).value, '2');
			await endClients();
			await hpkvd.ready();
		});

		test('HPKVSubscriptionClient and WebsocketTokenManager', async () => {
			const client = await subscriber({ subscribePatterns: ['s:1', 'pre:*'], accessPattern: '^(s|pre):' });
			const writer = await api();
			await writer.set('other', 'x');
			await writer.set('s:1', 'one');
			await client.set('pre:1', 'two');
			await writer.delete('s:1');
			await client.until((n) => n.key === 's:1' && n.value === null);
			assert.deepEqual(client.received.map(({ type, key, value }) => [type, key, value]),
				[['notification', 's:1', 'one'], ['notification', 'pre:1', 'two'], ['notification', 's:1', null]]);
			await assert.rejects(client.get('other'), failsWith(403));
			assert.deepEqual((await client.range('pre:0', 'pre:9')).records, [{ key: 'pre:1', value: 'two' }]);
			await endClients();
		});

		test('changes that an outage hides are told after it', async () => {
			const client = await subscriber({ subscribePatterns: ['o:1', 'o:2'] });
			await client.set('o:1', 'before');
			await client.set('o:2', 'before');
			await client.until((n) => n.key === 'o:2');
			await sandbox.restart('o:1', 'changed meanwhile');
			const told = await client.until((n) => n.key === 'o:1' && n.value === 'changed meanwhile');
			assert.equal(told.type, 'notification');
			await client.until((n) => n.key === 'o:2' && n.value === null);
			await client.set('o:2', 'after');
			await client.until((n) => n.key === 'o:2' && n.value === 'after');
			await endClients();
			await hpkvd.ready();
		});
	});

	describe('@hpkv/rest-client', () => {
		const rest = () => new HPKVRestClient(hpkvd.url, hpkvd.url, LOCAL_KEY);

		test('all operations', async () => {
			const client = rest();
			for (const key of ['rest:1', 'a/b//../c?d=e&f#g%20h+i', 'ä€😀', ' ', '%', '\u0000x', 'atomic']) {
				assert.equal((await client.set(key, `of ${key}`)).success, true);
				assert.deepEqual(await client.get(key), { key, value: `of ${key}` });
				// The client encodes the ends of a range twice.
				assert.deepEqual((await client.range(key, key)).records, [{ key, value: `of ${key}` }]);
				assert.equal((await client.delete(key)).success, true);
				await assert.rejects(client.get(key), { status: 404, message: 'Record not found' });
			}
			await client.set('doc', { a: 1 });
			await client.set('doc', { b: 2 }, true);
			assert.deepEqual(JSON.parse((await client.get('doc')).value), { a: 1, b: 2 });
			assert.equal((await client.atomicIncrement('visits', 3)).result, 3);
			assert.equal((await client.atomicIncrement('visits', -1)).result, 2);
			for (const i of [1, 2, 3])
				await client.set(`rr ${i}`, `${i}`);
			const range = await client.range('rr 1', 'rr 3', 2);
			assert.deepEqual([range.records.map((record) => record.key), range.count, range.truncated], [['rr 1', 'rr 2'], 2, true]);
			await assert.rejects(client.set('', 'x'), { status: 400 });
		});

		test('Nexus', async () => {
			const client = rest();
			await client.set('article', 'The quick brown fox');
			assert.deepEqual(await client.nexusSearch('quick fox'), { results: [{ key: 'article', score: 1 }] });
			assert.deepEqual(await client.nexusQuery('brown'), { answer: 'The quick brown fox', sources: [{ key: 'article', score: 1 }] });
		});

		test('a wrong key', async () => {
			const client = new HPKVRestClient(hpkvd.url, hpkvd.url, 'a-wrong-local-key-of-some-length');
			await assert.rejects(client.get('x'), { status: 401 });
		});

		test('a request waits while the service is away', async () => {
			const client = rest();
			const { port } = sandbox;
			await sandbox.stop();
			const waiting = client.set('rest:during', '1');
			await sandbox.start(port);
			assert.equal((await waiting).success, true);
			await hpkvd.ready();
		});
	});

	describe('@hpkv/zustand-multiplayer', () => {
		const initial = (set) => ({ count: 0, todos: {}, set });

		async function store() {
			const made = createStore(multiplayer(initial, { namespace: 'my-app_v1', apiBaseUrl: hpkvd.url, apiKey: LOCAL_KEY, logLevel: LogLevel.NONE }));
			await until(made, (state) => state.multiplayer.hasHydrated);
			return made;
		}

		async function until(of, done) {
			if (done(of.getState()))
				return;
			await new Promise((resolve) => {
				const end = of.subscribe((state) => {
					if (done(state)) {
						end();
						resolve();
					}
				});
			});
		}

		test('two stores see each other, also after an outage', async () => {
			const one = await store(), two = await store();
			one.getState().set({ count: 5 });
			await until(two, (state) => state.count === 5);
			two.getState().set((state) => ({ todos: { ...state.todos, a: { text: 'milk' } } }));
			await until(one, (state) => state.todos.a?.text === 'milk');
			const { port } = sandbox;
			await sandbox.stop();
			await sandbox.start(port);
			await hpkvd.ready();
			one.getState().set({ count: 7 });
			await until(two, (state) => state.count === 7);
			const three = await store(); // hydrates from what the service holds
			assert.equal(three.getState().count, 7);
			for (const made of [one, two, three])
				await made.multiplayer.destroy();
		});
	});
});
