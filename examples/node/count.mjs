#!/usr/bin/env node
// count.mjs KEY - counts: adds one to KEY and prints what it is now.
//
// Exit status: 0 done, 1 not counted, 2 perhaps counted.
import net from 'node:net';

const SOCKET = process.env.HPKVD_SOCKET ?? '/run/hpkvd/hpkvd.sock';

// [ask]
/** A connection to hpkvd; any number of requests may be in flight. */
class Hpkv {
  #waiting = new Map(); // messageId -> the promise of the answer
  #lastId = 0;
  #received = '';

  async connect(path = SOCKET) {
    this.socket = net.createConnection(path).setEncoding('utf8');
    await new Promise((resolve, reject) => this.socket.once('connect', resolve).once('error', reject));
    this.socket.on('data', (chunk) => this.#take(chunk));
    this.socket.on('error', () => {}); // 'close' follows
    this.socket.on('close', () => this.#waiting.forEach(({ reject }) => reject(new Error('hpkvd has closed the connection'))));
    return this;
  }

  /** Resolves to the answer, which may be an error; rejects if the connection ends without one. */
  ask(request) {
    const messageId = ++this.#lastId;
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) reject(new Error('there is no connection'));
      this.#waiting.set(messageId, { resolve, reject });
      this.socket.write(JSON.stringify({ ...request, messageId }) + '\n');
    });
  }

  #take(chunk) {
    const lines = (this.#received + chunk).split('\n');
    this.#received = lines.pop(); // an incomplete line
    for (const answer of lines.map((line) => JSON.parse(line))) {
      this.#waiting.get(answer.messageId)?.resolve(answer);
      this.#waiting.delete(answer.messageId);
    }
  }
}
// [end]

function fail(status, why) {
  console.error(why);
  process.exit(status);
}

const hpkv = await new Hpkv().connect().catch((e) => fail(1, `not counted: ${SOCKET}: ${e.code}`));
const answer = await hpkv
  .ask({ op: 'increment', key: process.argv[2] })
  .catch((e) => ({ code: 0, error: e.message, executed: 'unknown' }));
if (answer.code === 200) console.log(answer.newValue);
else if (answer.executed === 'unknown') fail(2, `perhaps counted: ${answer.error}`);
else fail(1, `not counted: ${answer.error}`);
hpkv.socket.end();
