'use strict';
// The names and shapes of @hpkv/websocket-client. Keys and URLs are hpkvd's business: what is given here is ignored.
const { AuthenticationError, DEFAULT_TIMEOUT, Emitter, HPKVError, PAGE, failure, lastKey } = require('./wire.cjs');
const { Requests } = require('./requests.cjs');
const { Subscription } = require('./subscription.cjs');

const ConnectionState = Object.freeze({
  DISCONNECTED: 'DISCONNECTED', CONNECTING: 'CONNECTING', CONNECTED: 'CONNECTED', DISCONNECTING: 'DISCONNECTING', RECONNECTING: 'RECONNECTING',
});
const HPKVOperation = Object.freeze({ GET: 1, SET: 2, PATCH: 3, DELETE: 4, RANGE: 5, ATOMIC: 6 });

const LOCAL = 'hpkvd-local:'; // a token that only this package understands

/** Words with a * are patterns, others are keys. */
function topics(words) {
  const regex = words.find((word) => word.startsWith('^'));
  if (regex) throw new TypeError(`${regex}: hpkvd's patterns are globs, and no regular expressions`);
  return { keys: words.filter((word) => !word.includes('*')), patterns: words.filter((word) => word.includes('*')) };
}

function textOf(value) {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  if (value === null || text === undefined) throw new TypeError('null and undefined are no values: delete() deletes');
  return text;
}

/** Requests to HPKV through hpkvd. */
class BaseWebSocketClient {
  constructor(config = {}) {
    this.config = config ?? {};
    this.emitter = new Emitter();
    this.emitter.on('error', () => {}); // one that nobody listens for ends no program
    this.requests = new Requests(this.config.socket, (event, argument) => this.emitter.emit(event, argument));
  }

  send(request, timeoutMs) {
    return this.requests.send(request, timeoutMs ?? this.config.timeoutMs ?? DEFAULT_TIMEOUT);
  }

  async get(key, timeoutMs) {
    return this.send({ op: 'get', key }, timeoutMs);
  }

  async set(key, value, partialUpdate = false, timeoutMs = undefined) {
    return this.send({ op: partialUpdate ? 'patch' : 'set', key, value: textOf(value) }, timeoutMs);
  }

  async delete(key, timeoutMs) {
    return this.send({ op: 'delete', key }, timeoutMs);
  }

  async range(key, endKey, options = {}, timeoutMs = undefined) {
    return this.send({ op: 'range', key, endKey, limit: options?.limit }, timeoutMs);
  }

  async atomicIncrement(key, value, timeoutMs) {
    return this.send({ op: 'increment', key, value }, timeoutMs);
  }

  /** Any request of hpkvd's protocol; resolves to its answer. */
  async request(request, timeoutMs) {
    return this.send(request, timeoutMs);
  }

  /** All records whose keys begin with prefix, page by page. */
  async* scan(prefix = '') {
    const last = lastKey(prefix);
    for (let first = prefix || '\0', known; ;) {
      const { records, truncated } = await this.range(first, last, { limit: PAGE });
      yield* records.filter(({ key }) => key !== known); // a page begins with the last key of the one before
      const end = records.at(-1)?.key;
      if (!truncated) return;
      if (end === undefined || end === known) {
        throw failure('the service says that there are more records, but returns none', 502, 'bad_upstream', 'no');
      }
      first = known = end;
    }
  }

  /** What happens to keys and patterns (words with a *), for "for await". The last argument may be {initial: true}. */
  watch(...words) {
    const options = typeof words.at(-1) === 'object' ? words.pop() : {};
    return new Subscription({ socket: this.config.socket, timeoutMs: this.config.timeoutMs, ...topics(words), ...options });
  }

  async status() {
    return this.send({ op: 'status' });
  }

  async stats() {
    return (await this.send({ op: 'stats' })).stats;
  }

  // ---- the connection: it is made by itself, so all of this may be left out ----

  async connect() {
    return this.requests.opened();
  }

  /** false: what is under way is waited for. */
  async disconnect(cancelPendingRequests = true) {
    if (!cancelPendingRequests) await this.requests.idle();
    if (this.requests.close()) this.emitter.emit('disconnected', { code: 1000, reason: 'closed by the program' });
  }

  destroy() {
    this.requests.close();
    this.emitter.removeAllListeners();
  }

  getConnectionState() {
    return this.requests.state;
  }

  getConnectionStats() {
    return {
      isConnected: this.requests.state === ConnectionState.CONNECTED,
      reconnectAttempts: this.requests.attempts,
      messagesPending: this.requests.pending.size,
      connectionState: this.requests.state,
      throttling: null,
    };
  }

  on(event, listener) {
    this.emitter.on(event, listener);
  }

  off(event, listener) {
    this.emitter.off(event, listener);
  }

  /** hpkvd paces the requests of all programs together: status() tells how. */
  getThrottlingStatus() {
    return { enabled: false, config: { enabled: false }, metrics: { currentRate: 0, queueLength: this.requests.waiting.size } };
  }

  updateThrottlingConfig() {}
}

class HPKVApiClient extends BaseWebSocketClient {
  constructor(apiKey, baseUrl, config) {
    super(config);
  }
}

const tokens = new Map(); // real ones -> what they are for
const TOKENS_MOST = 1000;
let warned = false;

/** The keys and patterns that a token of generateToken() is for, or what a token of the service says itself. */
function patternsOf(token) {
  if (tokens.has(token)) return tokens.get(token);
  try {
    const local = String(token).startsWith(LOCAL);
    const part = local ? token.slice(LOCAL.length) : token.split('.')[1];
    const said = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
    return local ? said : [...new Set([...(said.subscribeKeys ?? []), ...(said.subscribePatterns ?? [])])];
  } catch {
    return [];
  }
}

/**
 * Calls back for each change of the keys and patterns that its token is for, or that config names (subscribePatterns).
 *
 * Beyond the SDK's notifications, on('gap') and on('connection') tell what may have been missed.
 */
class HPKVSubscriptionClient extends BaseWebSocketClient {
  constructor(token, baseUrl, config) {
    super(config);
    this.patterns = this.config.subscribePatterns ?? patternsOf(token);
    this.requests.tell = () => {}; // what is told is the subscription's connection
    this.callbacks = new Map();
    this.lastCallback = 0;
  }

  async connect() {
    if (this.subscription && !this.subscription.closed) return this.subscription.ready;
    if (!this.patterns.length) {
      throw new AuthenticationError('hpkvd ignores tokens, and this one does not say which keys: name them in config.subscribePatterns',
        403, undefined, 'no');
    }
    this.subscription = this.watch(...this.patterns);
    this.follow(this.subscription);
    await this.subscription.ready;
    this.emitter.emit('connected');
  }

  async follow(subscription) {
    try {
      for await (const event of subscription) {
        if (event.type === 'notification') this.call(event);
        else if (event.type === 'connection' && event.to === 'daemon') {
          this.emitter.emit(event.state, event.state === 'disconnected' ? { code: 1006, reason: 'hpkvd has closed the connection' } : undefined);
        }
        if (event.type !== 'notification') this.emitter.emit(event.type, event);
      }
    } catch (e) {
      this.emitter.emit('error', e);
    }
  }

  call(event) {
    for (const callback of [...this.callbacks.values()]) {
      try {
        callback(event);
      } catch (e) {
        this.emitter.emit('error', e); // of one callback: the others are called
      }
    }
  }

  subscribe(callback) {
    const id = `callback-${++this.lastCallback}`;
    this.callbacks.set(id, callback);
    return id;
  }

  unsubscribe(id) {
    this.callbacks.delete(id);
  }

  getConnectionState() {
    if (!this.subscription) return super.getConnectionState();
    if (this.subscription.live) return ConnectionState.CONNECTED;
    if (this.subscription.closed) return ConnectionState.DISCONNECTED;
    return this.subscription.wasLive ? ConnectionState.RECONNECTING : ConnectionState.CONNECTING;
  }

  getConnectionStats() {
    const connectionState = this.getConnectionState();
    return { ...super.getConnectionStats(), connectionState, isConnected: connectionState === ConnectionState.CONNECTED };
  }

  async disconnect(cancelPendingRequests = true) {
    if (!cancelPendingRequests) await this.requests.idle();
    const had = this.subscription && !this.subscription.closed;
    this.subscription?.close();
    const closed = this.requests.close();
    if (had || closed) this.emitter.emit('disconnected', { code: 1000, reason: 'closed by the program' });
  }

  destroy() {
    this.subscription?.close();
    this.callbacks.clear();
    super.destroy();
  }
}

class HPKVClientFactory {
  static createApiClient(apiKey, baseUrl, config) {
    return new HPKVApiClient(apiKey, baseUrl, config);
  }

  static createSubscriptionClient(token, baseUrl, config) {
    return new HPKVSubscriptionClient(token, baseUrl, config);
  }
}

/**
 * Mints tokens with hpkvd, if an access rule grants them: these are HPKV's, for browsers and other machines. Where no rule does, the
 * token is one that only createSubscriptionClient() of this package understands.
 */
class WebsocketTokenManager {
  constructor(apiKey, baseUrl, config) {
    this.client = new BaseWebSocketClient(config);
  }

  async generateToken({ subscribePatterns = [], subscribeKeys = [], accessPattern } = {}) {
    const words = [...subscribeKeys, ...subscribePatterns];
    try {
      const { token } = await this.client.send({ op: 'token', subscribeKeys, subscribePatterns, accessPattern });
      if (tokens.size >= TOKENS_MOST) tokens.delete(tokens.keys().next().value);
      tokens.set(token, words);
      return token;
    } catch (e) {
      if (!(e instanceof HPKVError) || e.code !== 403) throw e;
      topics(words); // what can't be subscribed to fails here
      if (!warned) {
        process.emitWarning('The access rules of hpkvd grant no token: this one serves createSubscriptionClient() of this package, and no browser');
      }
      warned = true;
      return LOCAL + Buffer.from(JSON.stringify(words)).toString('base64url');
    } finally {
      await this.client.disconnect();
    }
  }
}

module.exports = {
  BaseWebSocketClient, ConnectionState, HPKVApiClient, HPKVClientFactory, HPKVOperation, HPKVSubscriptionClient, WebsocketTokenManager,
};
