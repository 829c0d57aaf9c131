'use strict';
// What clients, subscriptions and mirrors share: addresses, lines, errors, pauses.
const { EventEmitter } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const KEY_MAX = 512; // bytes: the longest key that the service is known to take
const PAGE = 1000; // records: the service's most
const DEFAULT_TIMEOUT = 10000; // ms
const MOST_TIMEOUT = 600000;
const TIMER_MOST = 2 ** 31 - 1; // ms: a longer timer would end at once
const GRACE = 2000; // the daemon tells best why something took too long, so it may be a bit late

/** A request failed. executed: 'no', or 'unknown': a write that was sent, and whose answer never came. */
class HPKVError extends Error {
  constructor(message, code, reason, executed = 'no', retryAfterMs) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.reason = reason;
    this.executed = executed;
    this.retryAfterMs = retryAfterMs;
  }
}
/** There is no connection: to the daemon, or of it to the service. */
class ConnectionError extends HPKVError {}
/** It could not be done, or was not answered, in its time. */
class TimeoutError extends HPKVError {}
/** The access rules or the service forbid it. */
class AuthenticationError extends HPKVError {}

const KINDS = {
  connection_lost: ConnectionError,
  no_daemon: ConnectionError,
  closed: ConnectionError,
  outcome_unknown: ConnectionError,
  shutting_down: ConnectionError,
  slow_client: ConnectionError,
  too_many_clients: ConnectionError,
  upstream_down: TimeoutError,
  timeout: TimeoutError,
  rate_limited: TimeoutError,
  forbidden: AuthenticationError,
};

function failure(message, code, reason, executed, retryAfterMs) {
  const Kind = KINDS[reason] ?? (code === 401 ? AuthenticationError : HPKVError);
  return new Kind(message, code, reason, executed, retryAfterMs);
}

/** The error that an answer is, or null. */
function errorOf(answer) {
  const code = typeof answer.code === 'number' ? answer.code : 0;
  if (code >= 200 && code < 300) return null;
  const message = answer.error || answer.message || 'an answer that does not say what went wrong';
  const executed = answer.executed ?? (code >= 500 || code === 0 ? 'unknown' : 'no');
  return failure(String(message), code, answer.reason, executed, answer.retryAfterMs);
}

const noDaemon = (address, why) => failure(`no connection to hpkvd at ${address.replace(/^\0/, '@')}: ${why}`, 503, 'no_daemon', 'no');

/** A daemon that ends has not executed it; the next one will. */
const passes = (answer) => answer.reason === 'shutting_down' && answer.executed === 'no';

/** What net.connect() takes. */
function addressOf(given) {
  let name = given || process.env.HPKVD_SOCKET;
  if (!name) {
    const runtime = process.env.XDG_RUNTIME_DIR;
    name = runtime ? path.join(runtime, 'hpkvd.sock') : '';
    if (!name || !fs.existsSync(name)) name = '/run/hpkvd/hpkvd.sock';
  }
  if (name.startsWith('unix:')) name = name.slice(5);
  return name.startsWith('@') ? `\0${name.slice(1)}` : name;
}

/** Reads lines; hands each on as an object. What is no object is nothing that hpkvd would say. */
class Lines {
  constructor(take) {
    this.take = take;
    this.chunks = [];
  }

  push(chunk) {
    for (let begin = 0; ;) {
      const end = chunk.indexOf(10, begin);
      if (end < 0) {
        if (begin < chunk.length) this.chunks.push(chunk.subarray(begin));
        return;
      }
      const part = chunk.subarray(begin, end);
      const line = this.chunks.length ? Buffer.concat([...this.chunks, part]) : part;
      this.chunks = [];
      begin = end + 1;
      let message;
      try {
        message = JSON.parse(line.toString('utf8'));
      } catch {
        continue;
      }
      if (message && typeof message === 'object') this.take(message);
    }
  }
}

/** A listener that throws ends the program, as ever, but takes nothing away from whoever emits: it throws a moment later. */
class Emitter extends EventEmitter {
  emit(...words) {
    try {
      return super.emit(...words);
    } catch (e) {
      process.nextTick(() => {
        throw e;
      });
      return true;
    }
  }
}

/** Does a failure end a subscription? Another key of the daemon's may cure a 401, so that ends only one that never was. */
const isFinal = (error, wasThere) => error.code === 400 || error.code === 403 || error.code === 413 || (error.code === 401 && !wasThere);

const timer = (call, ms) => setTimeout(call, Math.min(ms, TIMER_MOST));

/** A connection. opened(error), then take(message) for each line, then lost(why). */
function connect(address, { opened, take, lost }) {
  let socket;
  let up = false;
  let why = 'hpkvd has closed the connection';
  try {
    socket = net.connect({ path: address });
  } catch (e) { // a path that is too long
    process.nextTick(opened, e);
    return null;
  }
  const lines = new Lines(take);
  socket.on('connect', () => {
    up = true;
    opened(null);
  });
  socket.on('data', (chunk) => lines.push(chunk));
  socket.on('error', (e) => {
    if (up) why = e.message;
    else opened(e);
  });
  socket.on('close', () => {
    if (up) lost(why);
  });
  return socket;
}

/** How long to wait before the next attempt: doubling, a random half of it left out. */
class Pause {
  constructor() {
    this.reset();
  }

  reset() {
    this.ms = 0;
  }

  next() {
    const pause = this.ms * (0.5 + Math.random() / 2);
    this.ms = Math.min(this.ms * 2, 2000) || 20;
    return pause;
  }
}

/** The last key that can begin with the prefix. */
function lastKey(prefix) {
  const room = Math.max(0, KEY_MAX - Buffer.byteLength(prefix));
  return prefix + '\u{10ffff}'.repeat(Math.floor(room / 4)) + ['', '\x7f', '\u07ff', '\uffff'][room % 4];
}

/** A function that says whether a key matches a glob, in which * stands for anything. */
function matcher(glob) {
  const regex = new RegExp(`^${glob.split('*').map((part) => part.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')).join('[^]*')}$`);
  return (key) => regex.test(key);
}

const limitTimeout = (ms) => Math.max(1, Math.min(Math.floor(ms), MOST_TIMEOUT));

module.exports = {
  AuthenticationError, ConnectionError, DEFAULT_TIMEOUT, Emitter, GRACE, HPKVError, MOST_TIMEOUT, PAGE, Pause, TimeoutError, addressOf,
  connect, errorOf, failure, isFinal, lastKey, limitTimeout, matcher, noDaemon, passes, timer,
};
