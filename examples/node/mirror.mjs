#!/usr/bin/env node
// mirror.mjs PREFIX - keeps a copy of all keys that begin with PREFIX (no * in it), and prints each change of it.
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const SOCKET = process.env.HPKVD_SOCKET ?? '/run/hpkvd/hpkvd.sock';

// [mirror]
class Mirror {
  copy = new Map();
  changed = null; // while records are read: the keys of notifications that came meanwhile, which are newer
  reading = 0; // the number of the current reading; answers to earlier ones are ignored

  constructor(prefix) {
    this.prefix = prefix;
  }

  /** Connects and follows, again and again. */
  async run() {
    for (this.pause = 100; ; this.pause = Math.min(this.pause * 2, 5000)) {
      await this.follow().catch((e) => console.error(`${e.message}; trying again`));
      await sleep(this.pause);
    }
  }

  async follow() {
    this.socket = net.createConnection(SOCKET).setEncoding('utf8');
    this.socket.on('connect', () => this.send({ op: 'subscribe', pattern: this.prefix + '*', messageId: 'subscribe' }));
    let received = '';
    for await (const chunk of this.socket) {
      const lines = (received + chunk).split('\n');
      received = lines.pop(); // an incomplete line
      for (const line of lines) this.take(JSON.parse(line));
    }
    throw new Error('hpkvd has closed the connection');
  }

  take(message) {
    if (message.type === 'notification') {
      this.changed?.add(message.key);
      this.put(message.key, message.value);
    } else if (message.type === 'gap') {
      this.readAll(); // changes may have been missed
    } else if (message.type === 'unsubscribed') {
      throw new Error('the access rules have ended the subscription');
    } else if (message.type === 'connection') {
      console.error(`the service is ${message.state}`);
    } else if (message.error) {
      throw new Error(message.error);
    } else if (message.messageId === 'subscribe') {
      this.pause = 100; // from here on no change is missed
      this.readAll();
    } else if (message.messageId === this.reading) {
      this.takePage(message);
    }
  }

  readAll() {
    this.reading++;
    this.seen = new Set();
    this.changed = new Set();
    this.readPage(this.prefix);
  }

  readPage(first) {
    this.first = first;
    this.send({ op: 'range', key: first, endKey: this.lastKey(), messageId: this.reading });
  }

  /** The last key that can begin with the prefix: a key has at most 512 bytes. */
  lastKey() {
    const room = Math.max(0, 512 - Buffer.byteLength(this.prefix));
    return this.prefix + '\u{10ffff}'.repeat(room / 4) + ['', '\x7f', '\u07ff', '\uffff'][room % 4];
  }

  takePage({ records, truncated }) {
    for (const { key, value } of records) {
      this.seen.add(key);
      if (!this.changed.has(key)) this.put(key, value);
    }
    if (truncated && records.at(-1).key === this.first) throw new Error('the service returns no more records');
    if (truncated) return this.readPage(records.at(-1).key); // which comes again: a longer key may be too long
    for (const key of [...this.copy.keys()]) if (!this.seen.has(key) && !this.changed.has(key)) this.put(key, null);
    this.changed = null;
  }

  put(key, value) {
    if (value === null) {
      if (this.copy.delete(key)) console.log(`${key} is gone`);
    } else if (this.copy.get(key) !== value) {
      this.copy.set(key, value);
      console.log(`${key} = ${value}`);
    }
  }

  send(request) {
    this.socket.write(JSON.stringify(request) + '\n');
  }
}
// [end]

await new Mirror(process.argv[2]).run();
