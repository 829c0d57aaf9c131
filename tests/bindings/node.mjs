// Scenarios of test_node.py: node node.mjs SCENARIO. HPKVD_PACKAGE is the package; ask('restart') has the test do something.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const folder = process.env.HPKVD_PACKAGE;
const {
  AuthenticationError, ConnectionError, ConnectionState, HPKVClientFactory, HPKVError, HPKVOperation, Mirror, Subscription, TimeoutError,
  WebsocketTokenManager,
} = await import(pathToFileURL(`${folder}/index.mjs`));

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ask(what) {
  console.log(what);
  assert.equal((await input.next()).value, 'done');
}

async function eventually(probe) {
  for (let i = 0; !(await probe()); i++) {
    assert.ok(i < 5000, `${probe} has not come true`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const fails = (promise, Kind, code, reason, executed) => assert.rejects(promise, (e) => {
  assert.ok(e instanceof Kind && e instanceof HPKVError && e instanceof Error, `${e.name} ${e.message}`);
  assert.deepEqual([e.code, e.reason, e.executed], [code, reason, executed], e.message);
  return true;
});

const api = (config) => HPKVClientFactory.createApiClient('a key', 'https://nowhere.invalid', config);

const scenarios = {
  async requests() {
    const client = api();
    await client.connect();
    assert.equal(client.getConnectionState(), ConnectionState.CONNECTED);
    assert.equal((await client.set('a:1', { name: 'Ada', n: 1 })).success, true);
    await client.set('a:1', { city: 'London' }, true);
    assert.deepEqual(JSON.parse((await client.get('a:1')).value), { name: 'Ada', n: 1, city: 'London' });
    assert.equal((await client.get('a:1')).code, 200);
    await client.set('a:2', 'two');
    const range = await client.range('a:', 'a:~', { limit: 1 });
    assert.deepEqual([range.records[0].key, range.count, range.truncated], ['a:1', 1, true]);
    assert.equal((await client.atomicIncrement('a:n', 5)).newValue, 5);
    await client.delete('a:2');
    await fails(client.get('a:2'), HPKVError, 404, undefined, 'no');
    await fails(client.set('a:2', 'x'.repeat(4000)), HPKVError, 400, undefined, 'no');
    await fails(client.set('a:2', 'x'.repeat(70000)), HPKVError, 413, 'too_large', 'no');
    await assert.rejects(client.set('a:2', null), TypeError);
    assert.equal((await client.status()).protocol, 1);
    assert.ok(Object.keys(await client.stats()).length > 10);
    assert.deepEqual(client.getConnectionStats(), {
      isConnected: true, reconnectAttempts: 0, messagesPending: 0, connectionState: 'CONNECTED', throttling: null,
    });
    await client.disconnect();
    assert.equal(client.getConnectionState(), ConnectionState.DISCONNECTED);
    await client.get('a:1'); // makes another connection
    client.destroy();
    assert.equal(HPKVOperation.ATOMIC, 6);
  },

  async commonjs() {
    const hpkvd = createRequire(import.meta.url)(folder);
    assert.deepEqual(Object.keys(hpkvd).sort(), Object.keys(await import(pathToFileURL(`${folder}/index.mjs`))).sort());
    const client = hpkvd.HPKVClientFactory.createApiClient();
    await client.set('cjs', 'x');
    client.destroy();
  },

  async text() {
    const client = api();
    const texts = ['é€😀', 'a\0b', '\ud800', '\u2028\n\r\t"\\', ' ', '\ufeff', 'x'.repeat(3072)];
    for (const [i, text] of texts.entries()) {
      await client.set(`t:${i}${text.slice(0, 9)}`, text);
      assert.equal((await client.get(`t:${i}${text.slice(0, 9)}`)).value, text);
    }
    const found = [];
    for await (const { value } of client.scan('t:')) found.push(value);
    assert.deepEqual(found.sort(), texts.sort());
    client.destroy();
  },

  async many() {
    const client = api({ timeoutMs: 60000 });
    await Promise.all([...Array(5000).keys()].flatMap((i) => [client.atomicIncrement('many:n', 1), client.set(`many:${String(i).padStart(4, '0')}`, 'v'.repeat(100))]));
    assert.equal((await client.get('many:n')).value, '5000');
    let n = 0;
    for await (const { key } of client.scan('many:')) assert.ok(key, n++);
    assert.equal(n, 5001);
    client.destroy();
  },

  async failures() {
    await fails(api({ socket: '/nowhere/sock' }).get('a'), ConnectionError, 503, 'no_daemon', 'no');
    await fails(api({ socket: 'x'.repeat(200) }).connect(), ConnectionError, 503, 'no_daemon', 'no');
    await fails(new Subscription({ keys: ['a'], socket: '/nowhere/sock' }).ready, ConnectionError, 503, 'no_daemon', 'no');
    await fails(new Mirror('a*', { socket: '/nowhere/sock' }).ready, ConnectionError, 503, 'no_daemon', 'no');
    await fails(HPKVClientFactory.createSubscriptionClient('token', 'url').connect(), AuthenticationError, 403, undefined, 'no');
    assert.throws(() => api().watch('^a.*'), TypeError);
  },

  async subscriptions() {
    const client = api();
    await client.set('s:k', 'before');
    const events = client.watch('s:p:*', 's:k', { initial: true });
    await events.ready;
    assert.deepEqual((({ key, value, initial }) => [key, value, initial])((await events.next()).value), ['s:k', 'before', true]);
    await client.set('s:p:1', 'é\0');
    await client.delete('s:p:1');
    const seen = [];
    for await (const event of events) {
      seen.push(event.value);
      if (event.value === null) break;
    }
    assert.deepEqual(seen, ['é\0', null]);
    assert.equal((await events.next()).done, true);
    client.destroy();
  },

  async sdk() {
    // As the SDK's own example does it, but for the import.
    const token = await new WebsocketTokenManager('key', 'https://nowhere.invalid').generateToken({ subscribePatterns: ['p:*', 'q'] });
    const client = HPKVClientFactory.createSubscriptionClient(token, 'https://nowhere.invalid');
    const told = [];
    client.on('connected', () => told.push('connected'));
    client.on('disconnected', () => told.push('disconnected'));
    await client.connect();
    const seen = [];
    client.subscribe(() => { throw new Error('of one callback'); });
    const id = client.subscribe((event) => seen.push([event.type, event.key, event.value]));
    await client.set('p:1', 'one');
    await client.set('q', 'two');
    await client.set('other', 'three');
    await eventually(() => seen.length === 2);
    assert.deepEqual(seen, [['notification', 'p:1', 'one'], ['notification', 'q', 'two']]);
    client.unsubscribe(id);
    assert.equal(client.getConnectionState(), 'CONNECTED');
    await client.disconnect();
    assert.deepEqual(told, ['connected', 'disconnected']);
    client.destroy();
    const jwt = `x.${Buffer.from('{"subscribePatterns":["p:*"]}').toString('base64url')}.y`;
    const other = HPKVClientFactory.createSubscriptionClient(jwt, '');
    await other.connect();
    other.destroy();
  },

  async token() {
    const token = await new WebsocketTokenManager('key', 'url').generateToken({ subscribePatterns: ['p:*'] });
    assert.ok(!token.startsWith('hpkvd-local:'), token);
    const client = HPKVClientFactory.createSubscriptionClient(token, 'url');
    await client.connect();
    client.destroy();
  },

  async mirror() {
    const client = api();
    await client.set('m:1', '1');
    const mirror = await new Mirror('m:*').ready;
    assert.deepEqual([...mirror], [['m:1', '1']]);
    const changes = [];
    mirror.on('change', (key, value) => changes.push([key, value]));
    await client.set('m:2', { a: 1 });
    await client.set('m:2', { b: 2 }, true);
    await eventually(() => mirror.get('m:2') === '{"a":1,"b":2}');
    await client.delete('m:1');
    await eventually(() => !mirror.has('m:1'));
    assert.deepEqual([mirror.size, [...mirror.keys()], mirror.stale], [1, ['m:2'], false]);
    assert.ok(changes.some(([key, value]) => key === 'm:1' && value === null));
    mirror.close();
    client.destroy();
  },

  async restart() {
    const client = api({ timeoutMs: 30000 });
    await client.set('r:1', '1');
    await client.set('r:n', '0');
    const mirror = await new Mirror('r:*').ready;
    const pattern = client.watch('r:*');
    const key = client.watch('r:1');
    await Promise.all([pattern.ready, key.ready]);
    const told = [];
    for (const name of ['disconnected', 'reconnecting', 'connected']) client.on(name, () => told.push(name));
    let done = 0;
    let unknown = 0;
    const work = Promise.all([...Array(20)].map(async () => {
      for (let i = 0; i < 40; i++) {
        await client.atomicIncrement('r:n', 1).then(() => done++, (e) => {
          assert.equal(e.executed, 'unknown', e.message);
          unknown++;
        });
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }));
    await ask('restart');
    await work;
    const sum = Number((await client.get('r:n')).value);
    assert.ok(done <= sum && sum <= done + unknown && unknown < 40, `${done} ${sum} ${unknown}`);
    assert.equal(told[0], 'disconnected');
    assert.equal(told.at(-1), 'connected');
    for (const [events, last] of [[pattern, (e) => e.type === 'gap' && e.pattern === 'r:*'], [key, (e) => e.initial]]) {
      const seen = [];
      do seen.push((await events.next()).value); while (!last(seen.at(-1)));
      assert.deepEqual(seen.filter((e) => e.to === 'daemon').map((e) => e.state), ['disconnected', 'connected']);
      events.close();
    }
    await client.set('r:2', '2');
    await eventually(() => mirror.get('r:2') === '2' && mirror.get('r:n') === String(sum) && !mirror.stale);
    await ask('service away');
    await eventually(() => mirror.stale);
    assert.equal(mirror.get('r:2'), '2');
    await ask('service back, and empty');
    await eventually(() => mirror.size === 0 && !mirror.stale);
    mirror.close();
    client.destroy();
  },

  // ---- a daemon that does what the test says ----

  async lost() {
    const client = api();
    assert.equal((await client.get('k')).value, 'v');
    await fails(client.set('k', 'v'), ConnectionError, 504, 'connection_lost', 'unknown');
    await client.request({ op: 'ping' });
    await client.set('k', 'to the successor');
    await fails(client.set('k', 'v', false, 50), TimeoutError, 504, 'timeout', 'unknown');
    client.destroy();
  },

  async ending() {
    const client = api();
    const first = client.set('k', '1'); // is refused by a daemon that ends
    await ask('refused');
    await eventually(() => client.requests.waiting.size);
    const second = client.set('k', '2');
    await ask('close');
    await Promise.all([first, second]);
    await ask('deaf');
    await client.set('k', '3'); // can't be sent, so it goes to the successor
    client.destroy();
  },

  async pieces() {
    const client = api();
    assert.equal((await client.get('k')).value, 'é'.repeat(1000000));
    assert.deepEqual((await Promise.all([...Array(50).keys()].map((i) => client.get(String(i))))).map((a) => a.value), [...Array(50).keys()].map(String));
    client.destroy();
  },

  async slow() {
    const events = new Subscription({ patterns: ['a:*'] });
    await events.ready;
    await ask('flood');
    assert.equal((await events.next()).value.skipped, 3);
    events.close();
  },

  async busy() {
    const events = new Subscription({ patterns: ['a:*'] });
    assert.equal((await events.next()).value.key, 'a:1');
    const before = Date.now();
    console.log('close');
    while (!existsSync(process.env.HPKVD_CLOSED)) ; // the program has other things to do
    while (Date.now() < before + 20) ;
    assert.equal((await input.next()).value, 'done');
    const seen = [];
    do seen.push((await events.next()).value); while (seen.at(-1).type !== 'gap');
    assert.ok(seen.at(-1).since <= before && seen.at(-1).since > before - 60000, `${JSON.stringify(seen)}, lost after ${before}`);
    events.close();
  },

  async listeners() {
    // One that throws ends the program, unless that is caught, and nothing else is lost.
    const caught = [];
    process.on('uncaughtException', (e) => caught.push(e.message));
    const client = api();
    client.on('connected', () => { throw new Error('connected'); });
    assert.equal((await client.get('k')).value, 'v');
    client.destroy();
    const mirror = new Mirror('a:*');
    mirror.on('change', (key) => { throw new Error(key); });
    await mirror.ready;
    assert.deepEqual([...mirror.keys()], ['a:1', 'a:2']);
    await eventually(() => caught.length === 3);
    assert.deepEqual(caught, ['connected', 'a:1', 'a:2']);
    mirror.close();
  },

  async clock() {
    const client = api();
    const answer = client.get('k', 1e12); // longer than a timer can be
    const { now } = Date;
    Date.now = () => now() + 1e9; // a wall clock that jumps has no say
    assert.equal((await answer).value, 'v');
    assert.equal((await client.request({ op: 'ping', messageId: 'mine' })).message, 'pong'); // the number is the package's
    client.destroy();
  },

  async patient() {
    const client = api();
    const set = client.set('k', 'v');
    await Promise.all([client.disconnect(false), set]);
    assert.equal(client.getConnectionState(), 'DISCONNECTED');
    const cut = client.set('k', 'v');
    await ask('read');
    await Promise.all([client.disconnect(), fails(cut, ConnectionError, 0, 'closed', 'unknown')]);
  },

  async left() {
    for await (const event of api().watch('a:*')) {
      assert.equal(event.key, 'a:1');
      break;
    }
    await ask('gone');
  },

  async unauthorized() {
    const events = api().watch('a:*');
    await events.ready;
    await ask('restart');
    const seen = [];
    do seen.push((await events.next()).value); while (seen.at(-1).type !== 'gap');
    assert.deepEqual(seen.map((e) => e.state), ['disconnected', 'connected', undefined]);
    events.close();
    await fails(api().watch('a:*').next(), AuthenticationError, 401, undefined, 'no');
  },

  async ended() {
    const events = new Subscription({ keys: ['k'] });
    const seen = [];
    for await (const event of events) seen.push(event.type);
    assert.deepEqual(seen, ['gap', 'unsubscribed']);
  },

  async reads() {
    const mirror = await new Mirror('a:*').ready;
    assert.deepEqual([...mirror], [['a:1', 'all of it'], ['a:2', '2']]);
    const ended = once(mirror, 'end');
    await ask('gap');
    await eventually(() => mirror.size === 1 && !mirror.stale);
    assert.deepEqual([...mirror], [['a:2', '3']]);
    await ask('unsubscribed');
    assert.equal((await ended)[0].code, 403);
    assert.equal(mirror.stale, true);
  },
};

await scenarios[process.argv[2]]();
process.stdin.destroy();
