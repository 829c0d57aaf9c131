'use strict';
const { GRACE, MOST_TIMEOUT, Pause, addressOf, connect, errorOf, failure, isFinal, limitTimeout, noDaemon, timer } = require('./wire.cjs');

const READ_MOST = 65536; // bytes that Node.js reads at once
const QUEUE_MOST = 100; // events that nobody has asked for yet; then the socket is not read further

/**
 * What happens to keys and patterns, for "for await": the service's notifications, gaps, and connections that come and go.
 *
 * It has a connection of its own, and reads hardly more than is asked for: for one that iterates slowly, hpkvd keeps the latest
 * change of each key (skipped). When the daemon restarts it subscribes again, and tells: {type: 'connection', to: 'daemon'} twice, a gap
 * for each pattern, and the present values of keys.
 */
class Subscription {
  constructor({ keys = [], patterns = [], initial = false, socket, timeoutMs = 10000 }) {
    this.keys = [...keys];
    this.patterns = [...patterns];
    this.initial = initial;
    this.given = socket;
    this.timeoutMs = timeoutMs;
    this.queue = [];
    this.waiting = []; // who has asked for an event that has not come
    this.closed = false;
    this.live = false;
    this.wasLive = false;
    this.pause = new Pause();
    if (!this.keys.length && !this.patterns.length) throw new TypeError('nothing to subscribe to');
    /** Resolves when every change from now on is told. */
    this.ready = new Promise((resolve, reject) => {
      this.isReady = resolve;
      this.isNotReady = reject;
    });
    this.ready.catch(() => {}); // it is an iterator's error as well
    this.connect();
  }

  connect() {
    const address = addressOf(this.given);
    this.socket = connect(address, {
      opened: (error) => {
        if (this.closed) return;
        if (!error) this.ask();
        else if (this.wasLive) this.again();
        else this.end(noDaemon(address, error.message));
      },
      take: (message) => this.take(message),
      lost: (why) => this.lost(why),
    });
    this.socket?.on('data', (chunk) => this.heard(chunk.length));
    if (this.closed) this.socket?.destroy();
  }

  /** Nothing was missed until .sure: the socket was read empty then, and the daemon has said more since. */
  heard(n) {
    if (n >= READ_MOST) return; // there may be more in it
    this.sure = this.heardAt;
    this.heardAt = Date.now();
  }

  ask() {
    const timeoutMs = limitTimeout(this.wasLive ? MOST_TIMEOUT : this.timeoutMs);
    const { keys, patterns } = this;
    this.socket.write(`${JSON.stringify({ op: 'subscribe', keys, patterns, initial: this.initial || this.wasLive, messageId: 0, timeoutMs })}\n`);
    this.timer = timer(() => {
      if (this.wasLive) this.socket.destroy(); // and again
      else this.end(failure('hpkvd has not answered in time', 503, 'timeout', 'no'));
    }, timeoutMs + GRACE);
  }

  again() {
    this.timer = setTimeout(() => this.connect(), this.pause.next());
  }

  lost(why) {
    clearTimeout(this.timer);
    if (this.closed) return;
    if (!this.wasLive) {
      this.end(noDaemon(addressOf(this.given), why));
      return;
    }
    if (this.live) {
      this.live = false;
      this.since = this.sure;
      this.put({ type: 'connection', state: 'disconnected', to: 'daemon', timestamp: Date.now() });
    }
    this.again();
  }

  answered(message) {
    clearTimeout(this.timer);
    const error = errorOf(message);
    if (error && this.wasLive && !isFinal(error, true)) {
      this.socket.destroy(); // and again
      return;
    }
    if (error) {
      this.end(error);
      return;
    }
    this.live = true;
    this.heardAt = Date.now();
    this.pause.reset();
    if (this.wasLive) {
      const until = Date.now();
      this.put({ type: 'connection', state: 'connected', to: 'daemon', timestamp: until });
      for (const pattern of this.patterns) this.put({ type: 'gap', pattern, since: this.since, until });
    }
    this.wasLive = true;
    this.isReady();
  }

  take(message) {
    if (this.closed) return;
    if (message.messageId === 0) {
      this.answered(message);
    } else if (message.type === 'connection') {
      this.put({ ...message, to: 'service' });
    } else if (message.type === 'unsubscribed') {
      this.keys = this.keys.filter((key) => key !== message.key);
      this.patterns = this.patterns.filter((pattern) => pattern !== message.pattern);
      this.put(message);
      if (!this.keys.length && !this.patterns.length) this.end();
    } else if (message.type !== undefined) {
      this.put(message);
    }
  }

  put(event) {
    const waiting = this.waiting.shift();
    if (waiting) {
      waiting.resolve({ value: event, done: false });
      return;
    }
    this.queue.push(event);
    if (this.queue.length >= QUEUE_MOST) this.socket?.pause();
  }

  end(error) {
    this.closed = true;
    this.error = error;
    clearTimeout(this.timer);
    this.socket?.destroy();
    this.isNotReady(error ?? failure('the subscription was closed', 0, 'closed', 'no'));
    for (const waiting of this.waiting.splice(0)) this.finish(waiting);
  }

  finish(waiting) {
    const { error } = this;
    this.error = undefined; // once
    if (error) waiting.reject(error);
    else waiting.resolve({ value: undefined, done: true });
  }

  /** Ends it, and an iteration that is under way. */
  close() {
    this.queue = [];
    if (!this.closed) this.end();
  }

  next() {
    if (this.queue.length) {
      const value = this.queue.shift();
      if (this.queue.length < QUEUE_MOST / 2) this.socket?.resume();
      return Promise.resolve({ value, done: false });
    }
    return new Promise((resolve, reject) => {
      if (this.closed) this.finish({ resolve, reject });
      else this.waiting.push({ resolve, reject });
    });
  }

  return() {
    this.close();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}

module.exports = { Subscription };
