'use strict';
// Requests over one connection, which is made when it is first needed, and again when it has to be.
const { performance } = require('node:perf_hooks');
const {
  DEFAULT_TIMEOUT, GRACE, Pause, addressOf, connect, errorOf, failure, limitTimeout, noDaemon, passes, timer,
} = require('./wire.cjs');

// Of these, one that was sent may be sent again: they change nothing.
const REPEATABLE = new Set(['get', 'range', 'subscribe', 'unsubscribe', 'token', 'ping', 'status', 'stats', 1, 5]);

class Requests {
  constructor(socket, tell) {
    this.given = socket;
    this.tell = tell; // (event, argument): connected, disconnected, reconnecting
    this.state = 'DISCONNECTED';
    this.pending = new Map(); // by number, in the order in which they were begun
    this.waiting = new Map(); // of these, to be sent, in this order
    this.lastId = 0;
    this.wasThere = false;
    this.attempts = 0;
    this.socket = null; // connected
    this.attempt = null; // a socket that is connecting, or a timer for the next one
    this.pause = new Pause();
  }

  send(request, timeoutMs = DEFAULT_TIMEOUT) {
    return new Promise((resolve, reject) => {
      const { messageId, ...rest } = request; // the number is ours
      const entry = { request: rest, resolve, reject, number: ++this.lastId, until: performance.now() + timeoutMs, sent: false };
      entry.text = JSON.stringify(rest); // what is no request fails here
      entry.repeatable = REPEATABLE.has(rest.op);
      entry.timer = timer(() => this.late(entry), timeoutMs + GRACE);
      this.pending.set(entry.number, entry);
      this.waiting.set(entry.number, entry);
      this.pump();
    });
  }

  settle(entry) {
    clearTimeout(entry.timer);
    this.pending.delete(entry.number);
    this.waiting.delete(entry.number);
  }

  fail(entry, error) {
    this.settle(entry);
    entry.reject(error);
  }

  late(entry) {
    if (entry.sent) {
      this.fail(entry, failure('hpkvd has not answered in time', 504, 'timeout', entry.repeatable ? 'no' : 'unknown'));
    } else {
      this.fail(entry, this.socket ? failure('hpkvd has not read it in time', 503, 'timeout', 'no') : noDaemon(addressOf(this.given), this.why));
    }
  }

  /** Sends what waits, as long as the connection takes it: so what was not sent is known. */
  pump() {
    if (!this.socket) {
      if (this.waiting.size) this.connect();
      return;
    }
    for (const entry of this.waiting.values()) {
      if (this.socket.writableLength || this.ending || this.socket.destroyed) break;
      const rest = entry.text === '{}' ? '' : `,${entry.text.slice(1, -1)}`;
      const timeout = 'timeoutMs' in entry.request ? '' : `,"timeoutMs":${limitTimeout(entry.until - performance.now())}`;
      this.socket.write(`{"messageId":${entry.number}${timeout}${rest}}\n`);
      if (this.socket.errored) return; // nothing of it could be sent: it waits on
      entry.sent = true;
      this.waiting.delete(entry.number);
    }
    if (this.waiting.size && !this.draining && !this.ending && !this.socket.destroyed) {
      this.draining = true;
      this.socket.write('', () => {
        this.draining = false;
        this.pump();
      });
    }
  }

  /** For those who want to know: resolves once there is a connection. */
  opened() {
    if (this.socket) return Promise.resolve();
    return this.send({ op: 'ping' }).then(() => undefined);
  }

  connect() {
    if (this.socket || this.attempt) return;
    this.state = this.wasThere ? 'RECONNECTING' : 'CONNECTING';
    const address = addressOf(this.given);
    const socket = connect(address, {
      opened: (error) => {
        this.attempt = null;
        if (error) this.notOpened(noDaemon(address, error.message), error);
        else this.isOpen(socket);
      },
      take: (message) => this.take(message),
      lost: (why) => this.lost(socket, why),
    });
    if (socket) this.attempt = socket;
    else this.attempt = { destroy() {} };
  }

  isOpen(socket) {
    this.socket = socket;
    this.ending = false; // hpkvd refuses everything, since it ends
    this.state = 'CONNECTED';
    this.wasThere = true;
    this.attempts = 0;
    this.pause.reset();
    this.tell('connected');
    this.pump();
  }

  /** One that was there before is waited for, within the time of each request. */
  notOpened(error, cause) {
    this.why = cause.message;
    if (!this.wasThere || cause instanceof TypeError) {
      this.state = 'DISCONNECTED';
      for (const entry of [...this.waiting.values()]) this.fail(entry, error);
      return;
    }
    this.attempts++;
    const ms = this.pause.next();
    this.tell('reconnecting', { attempt: this.attempts, maxAttempts: Infinity, delay: ms });
    const again = setTimeout(() => {
      this.attempt = null;
      if (this.waiting.size) this.connect();
    }, ms);
    this.attempt = { destroy: () => clearTimeout(again) };
  }

  take(message) {
    if (message.messageId === undefined && message.code !== undefined) {
      this.farewell = `hpkvd says: ${message.error}`;
      return;
    }
    const entry = this.pending.get(message.messageId);
    if (!entry || !entry.sent) return; // too late: it was told that there was no answer
    if (passes(message) && performance.now() < entry.until) {
      entry.sent = false; // it goes to the daemon's successor
      this.ending = true;
      this.waiting.set(entry.number, entry);
      return;
    }
    this.settle(entry);
    const error = errorOf(message);
    if (error) entry.reject(error);
    else entry.resolve(message);
  }

  lost(socket, why) {
    if (this.socket !== socket) return;
    this.socket = null;
    this.draining = false;
    this.state = 'DISCONNECTED';
    this.why = this.farewell ?? why;
    this.farewell = undefined;
    this.waiting.clear();
    for (const entry of [...this.pending.values()]) {
      if (entry.sent && !entry.repeatable) {
        this.fail(entry, failure(`sent, but the connection to hpkvd was lost before the answer came: ${this.why}`, 504, 'connection_lost', 'unknown'));
      } else {
        entry.sent = false;
        this.waiting.set(entry.number, entry);
      }
    }
    this.tell('disconnected', { code: 1006, reason: this.why });
    if (this.waiting.size) this.connect();
  }

  /** Resolves once all that is under way has ended, in whatever way. */
  async idle() {
    while (this.pending.size) {
      await new Promise((resolve) => {
        const [entry] = this.pending.values();
        const { resolve: good, reject: bad } = entry;
        entry.resolve = (answer) => resolve(good(answer));
        entry.reject = (error) => resolve(bad(error));
      });
    }
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    this.draining = false;
    if (this.attempt) this.attempt.destroy();
    this.attempt = null;
    if (socket) socket.destroy();
    this.state = 'DISCONNECTED';
    for (const entry of [...this.pending.values()]) {
      this.fail(entry, failure('the client was closed', 0, 'closed', entry.sent && !entry.repeatable ? 'unknown' : 'no'));
    }
    return socket !== null;
  }
}

module.exports = { Requests };
