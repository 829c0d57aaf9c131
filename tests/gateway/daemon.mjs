// hpkvd in front of hpkv-sandbox, for the tests of the gateway in JavaScript. HPKVD and SANDBOX are the binaries.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { firstLine, freePort } from './support.mjs';

export const SERVICE_KEY = 'the-key-of-the-service', LOCAL_KEY = 'a-local-key-of-some-length';

export class Sandbox {
	key = SERVICE_KEY;

	async start(port) {
		const args = ['--port', port ?? await freePort(), '--api-key', SERVICE_KEY];
		this.process = spawn(process.env.SANDBOX, args, { stdio: ['ignore', 'pipe', 'inherit'] });
		this.url = (await firstLine(this.process)).replace('listening on ', '');
		this.port = new URL(this.url).port;
		return this;
	}

	async stop() {
		const exited = once(this.process, 'exit');
		this.process.kill('SIGKILL');
		await exited;
	}

	// It starts anew, as empty as before, and holds this record at once.
	async restart(key, value) {
		await this.stop();
		await this.start(this.port);
		await this.put(key, value);
	}

	async put(key, value) {
		const headers = { 'x-api-key': SERVICE_KEY, 'content-type': 'application/json' };
		assert((await fetch(`${this.url}/record`, { method: 'POST', headers, body: JSON.stringify({ key, value }) })).ok);
	}
}

export class Hpkvd {
	// upstream: settings in the place of quick ones; with token_url there is no API key. files: more of them beside the configuration.
	async start(sandbox, listen = '', upstream = { backoff_min: '5ms', backoff_max: '50ms', request_timeout: '30s' }, files = {}) {
		const port = await freePort();
		this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hpkvd-test-'));
		this.socket = `${this.folder}/sock`;
		this.url = `http://127.0.0.1:${port}`;
		const all = { 'api-key': SERVICE_KEY, 'local-key': LOCAL_KEY, ...files };
		if (upstream.token_url)
			delete all['api-key'];
		for (const [name, text] of Object.entries(all))
			fs.writeFileSync(`${this.folder}/${name}`, text, { mode: 0o600 });
		fs.writeFileSync(`${this.folder}/hpkvd.conf`, `
[upstream]
url = ${sandbox.url}
${upstream.token_url ? '' : `nexus_url = ${sandbox.url}\napi_key_file = api-key`}
${Object.entries(upstream).map(([name, value]) => `${name} = ${value}`).join('\n')}
[listen]
socket = ${this.socket}
mode = 0600
http_address = 127.0.0.1:${port}
${listen}
[access app]
user = ${process.getuid()}
local_key_file = local-key
read = *
write = *
${upstream.token_url ? '' : 'nexus = yes'}
[log]
level = warning
`);
		const env = { ...process.env, STATE_DIRECTORY: this.folder };
		this.process = spawn(process.env.HPKVD, ['-c', `${this.folder}/hpkvd.conf`], { stdio: 'inherit', env });
		await this.ready();
		return this;
	}

	async ready() {
		for (;;) {
			assert.equal(this.process.exitCode, null, 'hpkvd has ended');
			const answer = await fetch(`${this.url}/hpkvd/ready`).catch(() => null);
			if (answer?.ok)
				return;
			await new Promise((resolve) => { setTimeout(resolve, 20); });
		}
	}

	async stop() {
		const exited = once(this.process, 'exit');
		this.process.kill('SIGTERM');
		assert.equal((await exited)[0], 0);
		fs.rmSync(this.folder, { recursive: true });
	}
}
