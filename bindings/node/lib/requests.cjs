'use strict';
// Requests over one connection, which is made when it is first needed, and again when it has to be.
const { DEFAULT_TIMEOUT, GRACE, Pause, addressOf, connect, errorOf, failure, limitTimeout, noDaemon, passes } = require('./wire.cjs');

// Of these, one that was sent may be sent again: they change nothing.
const REPEATABLE = new Set(['get', 'range', 'subscribe', 'unsubscribe', 'token', 'ping', 'status', 'stats', 1, 5]);

class Requests {
  constructor(socket, tell) {
    this.given = socket;
    this.tell = tell; // (event, argument): connected, disconnected, reconnecting
    this.state = 'DISCONNECTED';
    this.pending = new Map(); // by number, in the order in which they were begun
    this.waiting = []; // of these, to be sent
    this.lastId = 0;
    this.wasThere = false;
    this.attempts = 0;
    this.socket = null; // connected
    this.attempt = null; // a socket that is connecting, or a timer for the next one
    this.pause = new Pause();
  }

  send(request, timeoutMs = DEFAULT_TIMEOUT) {
    return new Promise((resolve, reject) => {
      const entry = { request, resolve, reject, number: ++this.lastId, until: Date.now() + timeoutMs, sent: false };
      entry.text = JSON.stringify(request); // what is no request fails here
      entry.repeatable = REPEATABLE.has(request.op);
      entry.timer = setTimeout(() => this.late(entry), timeoutMs + GRACE);
      this.pending.set(entry.number, entry);
      this.waiting.push(entry);
      this.pump();
    });
  }

  settle(entry) {
    clearTimeout(entry.timer);
    this.pending.delete(entry.number);
  }

  fail(entry, error) {
    this.settle(entry);
    entry.reject(error);
  }

  late(entry) {
    this.waiting = this.waiting.filter((other) => other !== entry);
    if (entry.sent) {
      this.fail(entry, failure('hpkvd has not answered in time', 504, 'timeout', entry.repeatable ? 'no' : 'unknown'));
    } else {
      this.fail(entry, this.socket ? failure('hpkvd has not read it in time', 503, 'timeout', 'no') : noDaemon(addressOf(this.given), this.why));
    }
  }

  /** Sends what waits, as long as the connection takes it: so what was not sent is known. */
  pump() {
    if (!this.socket) {
      if (this.waiting.length) this.connect();
      return;
    }
    while (this.waiting.length && this.socket.writableLength === 0 && !this.ending && !this.socket.destroyed) {
      const entry = this.waiting.shift();
      if (!this.pending.has(entry.number)) continue;
      entry.sent = true;
      const rest = entry.text === '{}' ? '' : `,${entry.text.slice(1, -1)}`;
      const timeout = 'timeoutMs' in entry.request ? '' : `,"timeoutMs":${limitTimeout(entry.until - Date.now())}`;
      this.socket.write(`{"messageId":${entry.number}${timeout}${rest}}\n`);
      if (this.socket.errored) { // nothing of it could be sent
        entry.sent = false;
        this.waiting.unshift(entry);
        return;
      }
    }
    if (this.waiting.length && !this.draining && !this.ending && !this.socket.destroyed) {
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
      for (const entry of this.waiting.splice(0)) this.fail(entry, error);
      return;
    }
    this.attempts++;
    const ms = this.pause.next();
    this.tell('reconnecting', { attempt: this.attempts, maxAttempts: Infinity, delay: ms });
    const timer = setTimeout(() => {
      this.attempt = null;
      if (this.waiting.length) this.connect();
    }, ms);
    this.attempt = { destroy: () => clearTimeout(timer) };
  }

  take(message) {
    if (message.messageId === undefined && message.code !== undefined) {
      this.farewell = `hpkvd says: ${message.error}`;
      return;
    }
    const entry = this.pending.get(message.messageId);
    if (!entry || !entry.sent) return; // too late: it was told that there was no answer
    if (passes(message) && Date.now() < entry.until) {
      entry.sent = false; // it goes to the daemon's successor
      this.ending = true;
      this.waiting.push(entry);
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
    this.waiting = [];
    for (const entry of [...this.pending.values()]) {
      if (entry.sent && !entry.repeatable) {
        this.fail(entry, failure(`sent, but the connection to hpkvd was lost before the answer came: ${this.why}`, 504, 'connection_lost', 'unknown'));
      } else {
        entry.sent = false;
        this.waiting.push(entry);
      }
    }
    this.tell('disconnected', { code: 1006, reason: this.why });
    if (this.waiting.length) this.connect();
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    this.draining = false;
    if (this.attempt) this.attempt.destroy();
    this.attempt = null;
    if (socket) socket.destroy();
    this.state = 'DISCONNECTED';
    this.waiting = [];
    for (const entry of [...this.pending.values()]) {
      this.fail(entry, failure('the client was closed', 0, 'closed', entry.sent && !entry.repeatable ? 'unknown' : 'no'));
    }
    return socket !== null;
  }
}

module.exports = { Requests };
