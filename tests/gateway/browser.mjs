// A page in headless Chromium that uses HPKV's SDK through hpkvd. Run by browser.test: BROWSER is the browser.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { Hpkvd, LOCAL_KEY, Sandbox } from './daemon.mjs';
import { after, before, describe, test } from './support.mjs';

const SDK = new URL('node_modules/@hpkv/websocket-client/dist/esm/index.js', import.meta.url);
// What the SDK needs on Node.js and finds in a browser.
const STUBS = { ws: 'const { WebSocket } = globalThis; export { WebSocket };', 'cross-fetch': 'export default (...all) => fetch(...all);' };

// Tells the server what has come of it, once.
const PAGE = (gateway, steps) => `<!doctype html>
<script type="importmap">{"imports":{"ws":"/ws.js","cross-fetch":"/cross-fetch.js"}}</script>
<script>
const tell = (result) => fetch('/result', { method: 'POST', body: JSON.stringify(result) });
addEventListener('error', (event) => tell({ error: event.message }));
</script>
<script type="module">
import { HPKVClientFactory } from '/sdk.js';
const gateway = ${JSON.stringify(gateway)}, key = ${JSON.stringify(LOCAL_KEY)};
(async () => { ${steps} })().then(tell, (error) => tell({ error: String(error) }));
</script>`;

// The SDK's own WebsocketTokenManager can't call a browser's fetch(): it does so as a method of its own.
const USE = `
const headers = { 'x-api-key': key, 'content-type': 'application/json' };
const wish = JSON.stringify({ subscribePatterns: ['page:*'] });
const { token } = await (await fetch(gateway + '/token/websocket', { method: 'POST', headers, body: wish })).json();
const client = HPKVClientFactory.createSubscriptionClient(token, gateway);
const told = new Promise((resolve) => client.subscribe(resolve));
await client.connect();
await client.set('page:1', 'from the page');
const { key: changed, value } = await told;
const record = await (await fetch(gateway + '/record/page:1', { headers })).json();
await client.disconnect();
return { changed, value, record };`;

// Each way by itself: a token, a request, a WebSocket.
const TRY = `
const outcome = (promise) => promise.then(() => 'worked', () => 'refused');
const open = (socket) => new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
return {
	token: await outcome(fetch(gateway + '/token/websocket', { method: 'POST', headers: { 'x-api-key': key }, body: '{}' })),
	request: await outcome(fetch(gateway + '/record/page:1', { headers: { 'x-api-key': key } })),
	socket: await outcome(open(new WebSocket(gateway.replace('http', 'ws') + '/ws?apiKey=' + key))),
};`;

// A web server whose page does these steps; its origin, and what the page tells.
async function serve(steps) {
	const site = { gateway: '' };
	site.result = new Promise((resolve) => { site.tell = resolve; });
	site.server = http.createServer((request, response) => {
		const script = (text) => response.writeHead(200, { 'content-type': 'text/javascript' }).end(text);
		if (request.url === '/sdk.js')
			script(fs.readFileSync(SDK));
		else if (request.url === '/result')
			request.on('data', (data) => site.tell(JSON.parse(data))).on('end', () => response.end());
		else if (request.url === '/')
			response.writeHead(200, { 'content-type': 'text/html' }).end(PAGE(site.gateway, steps));
		else
			script(STUBS[request.url.slice(1, -3)] ?? '');
	}).listen(0, '127.0.0.1');
	await once(site.server, 'listening');
	site.origin = `http://localhost:${site.server.address().port}`;
	return site;
}

async function show(site) {
	const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpkvd-test-browser-'));
	const browser = spawn(process.env.BROWSER, ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
		'--no-proxy-server', '--disable-background-networking', '--disable-component-update', '--disable-sync', `--user-data-dir=${folder}`,
		'--remote-debugging-port=0', site.origin], { stdio: 'ignore', detached: true });
	const exited = once(browser, 'exit');
	try {
		return await Promise.race([site.result, exited.then(() => assert.fail('the browser has ended'))]);
	} finally {
		process.kill(-browser.pid, 'SIGKILL');
		await exited;
		site.server.close();
		site.server.closeAllConnections();
		fs.rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
	}
}

describe('a page in a browser', { concurrency: 1 }, () => {
	let sandbox, hpkvd, allowed, other;
	before(async () => {
		allowed = await serve(USE);
		other = await serve(TRY);
		sandbox = await new Sandbox().start();
		hpkvd = await new Hpkvd().start(sandbox, `http_origins = https://elsewhere.example ${allowed.origin}`);
		allowed.gateway = other.gateway = hpkvd.url;
	});
	after(async () => {
		await hpkvd.stop();
		await sandbox.stop();
	});

	test('of an allowed origin uses the SDK', async () => {
		assert.deepEqual(await show(allowed), {
			changed: 'page:1', value: 'from the page', record: { key: 'page:1', value: 'from the page' },
		});
	});

	test('of another origin is refused', async () => {
		assert.deepEqual(await show(other), { token: 'refused', request: 'refused', socket: 'refused' });
	});
});
