'use strict';
const {
  Emitter, MOST_TIMEOUT, PAGE, Pause, addressOf, connect, errorOf, failure, isFinal, lastKey, matcher, noDaemon,
} = require('./wire.cjs');

const AT_ONCE = 100;
const AGAIN = 500; // ms after a failure

/**
 * The keys that match a pattern, and their values, as they are now: a Map that is kept true.
 *
 *   const app = await new Mirror('app:*').ready;
 *   app.get('app:color');
 *   app.on('change', (key, value) => …);   // value null: it is gone
 *
 * A notification says which key has changed; the key is read then, so a value never goes back, and is never a part of one. When changes
 * may have been missed all is read again. While the connection is lost the last values stay, and .stale is true.
 */
class Mirror extends Emitter {
  constructor(pattern, { socket } = {}) {
    super();
    this.pattern = pattern;
    this.given = socket;
    this.prefix = pattern.split('*')[0];
    this.matches = matcher(pattern);
    this.values_ = new Map();
    this.stale = true;
    this.closed = false;
    this.pause = new Pause();
    this.ready = new Promise((resolve, reject) => {
      this.isWhole = () => resolve(this);
      this.isNot = reject;
    });
    this.ready.catch(() => {}); // it is told by 'end' as well
    this.connect();
  }

  // ---- a map ----

  get(key) {
    return this.values_.get(key);
  }

  has(key) {
    return this.values_.has(key);
  }

  get size() {
    return this.values_.size;
  }

  keys() {
    return this.values_.keys();
  }

  values() {
    return this.values_.values();
  }

  entries() {
    return this.values_.entries();
  }

  forEach(call) {
    this.values_.forEach((value, key) => call(value, key, this));
  }

  [Symbol.iterator]() {
    return this.values_.entries();
  }

  /** Ends it; the values stay. */
  close() {
    if (!this.closed) this.end();
  }

  // ---- the connection ----

  connect() {
    const address = addressOf(this.given);
    this.reading = new Map(); // key -> has it changed since it was asked for?
    this.queue = []; // keys to be asked for when others are answered
    this.asked = new Map(); // number -> key
    this.under = 0; // keys that are asked for
    this.number = 0;
    this.load = 0;
    this.touched = new Set();
    this.away = false;
    this.socket = connect(address, {
      opened: (error) => {
        if (this.closed) return;
        if (!error) this.send({ op: 'subscribe', patterns: [this.pattern], messageId: 'subscribe', timeoutMs: MOST_TIMEOUT });
        else if (this.wasThere) this.again();
        else this.end(noDaemon(address, error.message));
      },
      take: (message) => {
        if (!this.closed) this.take(message);
      },
      lost: () => this.lost(),
    });
  }

  send(request) {
    this.socket.write(`${JSON.stringify(request)}\n`);
  }

  again() {
    this.timer = setTimeout(() => this.connect(), this.pause.next());
  }

  lost() {
    clearTimeout(this.retry);
    if (this.closed) return;
    this.becomeStale();
    this.again();
  }

  becomeStale() {
    if (this.stale) return;
    this.stale = true;
    this.emit('stale');
  }

  end(error) {
    this.closed = true;
    this.error = error;
    clearTimeout(this.timer);
    clearTimeout(this.retry);
    this.socket?.destroy();
    this.becomeStale();
    this.isNot(error ?? failure('the mirror was closed', 0, 'closed', 'no'));
    this.emit('end', error);
  }

  // ---- what comes ----

  take(message) {
    if (message.type === 'notification') {
      if (this.matches(message.key)) this.read(message.key);
    } else if (message.type === 'gap') {
      this.readAll();
    } else if (message.type === 'connection') {
      this.away = message.state !== 'connected';
      if (this.away) this.becomeStale();
      else this.readAll();
    } else if (message.type === 'unsubscribed') {
      this.end(failure(message.error ?? 'the access rules have ended the subscription', 403, 'forbidden', 'no'));
    } else if (message.messageId === 'subscribe') {
      this.subscribed(errorOf(message));
    } else if (typeof message.messageId === 'string') {
      this.takeValue(message);
    } else if (message.messageId === this.load) {
      this.takePage(message);
    }
  }

  subscribed(error) {
    if (error && isFinal(error, this.wasThere)) this.end(error);
    else if (error) this.socket.destroy(); // and again
    else {
      this.wasThere = true;
      this.pause.reset();
      this.readAll();
    }
  }

  // ---- one key ----

  /** Not twice at once: what comes meanwhile is read afterwards. */
  read(key) {
    this.touched.add(key);
    if (this.reading.has(key)) {
      this.reading.set(key, true);
      return;
    }
    this.reading.set(key, false);
    this.queue.push(key);
    this.askForKeys();
  }

  askForKeys() {
    while (this.queue.length && this.under < AT_ONCE) {
      const key = this.queue.shift();
      this.under++;
      this.asked.set(`key ${this.number}`, key);
      this.send({ op: 'get', key, messageId: `key ${this.number++}` });
    }
  }

  takeValue(answer) {
    const key = this.asked.get(answer.messageId);
    if (key === undefined) return;
    this.asked.delete(answer.messageId);
    this.under--;
    const changed = this.reading.get(key);
    this.reading.delete(key);
    const error = errorOf(answer);
    if (!error) this.put(key, answer.value);
    else if (error.code === 404) this.put(key, null);
    else {
      const { socket } = this;
      setTimeout(() => this.socket === socket && !this.closed && this.read(key), AGAIN).unref();
    }
    if (changed) this.read(key);
    this.askForKeys();
  }

  // ---- all ----

  readAll() {
    clearTimeout(this.retry);
    this.load++;
    this.seen = new Set();
    this.touched = new Set(this.reading.keys());
    this.becomeStale();
    this.readPage(this.prefix || '\0');
  }

  readPage(first) {
    this.first = first;
    this.send({ op: 'range', key: first, endKey: lastKey(this.prefix), limit: PAGE, messageId: this.load });
  }

  takePage(answer) {
    const error = errorOf(answer);
    if (error && isFinal(error, true)) this.end(error);
    if (error) {
      if (!this.closed) this.retry = setTimeout(() => this.readAll(), Math.max(AGAIN, error.retryAfterMs ?? 0));
      return;
    }
    const { records = [], truncated } = answer;
    for (const { key, value } of records) {
      if (!this.matches(key)) continue;
      this.seen.add(key);
      if (!this.touched.has(key)) this.put(key, value); // what was read of the key itself is newer
    }
    const last = records.at(-1)?.key;
    if (truncated && (last === undefined || last === this.first)) {
      this.retry = setTimeout(() => this.readAll(), AGAIN); // the service hands out no more, and says that there is
    } else if (truncated) {
      this.readPage(last); // which comes again: a longer key may be too long
    } else {
      this.loaded();
    }
  }

  loaded() {
    for (const key of [...this.values_.keys()]) {
      if (!this.seen.has(key) && !this.touched.has(key)) this.put(key, null);
    }
    if (!this.away) {
      this.stale = false;
      this.emit('fresh');
    }
    this.isWhole();
  }

  put(key, value) {
    if (value === null ? !this.values_.has(key) : this.values_.get(key) === value) return;
    if (value === null) this.values_.delete(key);
    else this.values_.set(key, value);
    this.emit('change', key, value);
  }
}

module.exports = { Mirror };
