// A host without an API key: hpkvd asks an endpoint for tokens, which is written as the README of HPKV's SDK shows it, with Express.
// Run by endpoint.test: HPKVD and SANDBOX are the binaries.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { HPKVClientFactory, HPKVError, WebsocketTokenManager } from '@hpkv/websocket-client';
import express from 'express';
import { Hpkvd, LOCAL_KEY, SERVICE_KEY, Sandbox } from './daemon.mjs';
import { after, before, describe, test } from './support.mjs';

const CREDENTIAL = 'Bearer of-this-host-alone';
const FAST = { throttling: { enabled: false } };

function endpoint(url) {
	const app = express();
	const tokenManager = new WebsocketTokenManager(SERVICE_KEY, url);
	app.use('/api/token', (req, res, next) => {
		if (req.headers.authorization === CREDENTIAL)
			next();
		else
			res.status(401).json({ error: 'Unauthorized' });
	});
	app.post('/api/token/websocket', async (req, res) => {
		try {
			const token = await tokenManager.generateToken({
				subscribeKeys: ['user:123', 'product:456'],
				accessPattern: '^(user|product):[0-9]+',
			});
			res.json({ token });
		} catch {
			res.status(500).json({ error: 'Failed to generate token' });
		}
	});
	return app.listen(0, '127.0.0.1');
}

describe('an endpoint as in the README of the SDK', { concurrency: 1 }, () => {
	let sandbox, server, hpkvd, client;
	before(async () => {
		sandbox = await new Sandbox().start();
		server = endpoint(sandbox.url);
		await once(server, 'listening');
		hpkvd = await new Hpkvd().start(sandbox, '', {
			token_url: `http://127.0.0.1:${server.address().port}/api/token/websocket`, token_header_file: 'headers',
		}, { headers: `Authorization: ${CREDENTIAL}\n` });
		client = HPKVClientFactory.createApiClient(LOCAL_KEY, hpkvd.url, FAST);
		await client.connect();
	});
	after(async () => {
		await client.disconnect();
		client.destroy();
		await hpkvd.stop();
		server.close();
		server.closeAllConnections();
		await sandbox.stop();
	});

	test('lets a host read and write without a key', async () => {
		assert((await client.set('user:1', 'Ada')).success);
		assert.equal((await client.get('user:1')).value, 'Ada');
	});

	test('decides which keys these are', async () => {
		await assert.rejects(client.set('secret:1', 'x'), (error) => error instanceof HPKVError && error.code === 403);
	});

	test('lets it subscribe', async () => {
		const token = await new WebsocketTokenManager(LOCAL_KEY, hpkvd.url).generateToken({ subscribeKeys: ['user:123'], accessPattern: '^user:' });
		const subscriber = HPKVClientFactory.createSubscriptionClient(token, hpkvd.url);
		const told = new Promise((resolve) => { subscriber.subscribe(resolve); });
		await subscriber.connect();
		await client.set('user:123', 'changed');
		assert.equal((await told).value, 'changed');
		await subscriber.disconnect();
		subscriber.destroy();
	});
});
