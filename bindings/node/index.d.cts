/// <reference types="node" />
import { EventEmitter } from 'node:events';

export declare enum ConnectionState {
  DISCONNECTED = 'DISCONNECTED',
  CONNECTING = 'CONNECTING',
  CONNECTED = 'CONNECTED',
  DISCONNECTING = 'DISCONNECTING',
  RECONNECTING = 'RECONNECTING',
}

export declare enum HPKVOperation { GET = 1, SET = 2, PATCH = 3, DELETE = 4, RANGE = 5, ATOMIC = 6 }

/** The SDK's options may stand here, and are ignored: hpkvd reconnects and paces. */
export interface ConnectionConfig extends RetryConfig {
  /** The daemon's socket: a path, or @name. Else $HPKVD_SOCKET, $XDG_RUNTIME_DIR/hpkvd.sock, /run/hpkvd/hpkvd.sock */
  socket?: string;
  /** How long a request may take in all; 10000 */
  timeoutMs?: number;
  /** What a subscription client is told of: keys, and patterns (with a *). Else what its token is for */
  subscribePatterns?: string[];
  throttling?: ThrottlingConfig;
  connectionTimeout?: number;
}

/** Ignored */
export interface RetryConfig {
  maxReconnectAttempts?: number;
  initialDelayBetweenReconnects?: number;
  maxDelayBetweenReconnects?: number;
  jitterMs?: number;
}

export interface ThrottlingConfig { enabled: boolean; rateLimit?: number }
export interface ThrottlingMetrics { currentRate: number; queueLength: number }

export interface ConnectionStats {
  isConnected: boolean;
  reconnectAttempts: number;
  messagesPending: number;
  connectionState?: ConnectionState;
  throttling?: ThrottlingMetrics | null;
}

export interface HPKVBaseResponse { code?: number; message?: string; messageId?: number; error?: string }
export interface HPKVGetResponse extends HPKVBaseResponse { key: string; value: string | number }
export interface HPKVSetResponse extends HPKVBaseResponse { success: boolean }
export interface HPKVPatchResponse extends HPKVBaseResponse { success: boolean }
export interface HPKVDeleteResponse extends HPKVBaseResponse { success: boolean }
export interface HPKVRangeResponse extends HPKVBaseResponse { records: Array<{ key: string; value: string }>; count: number; truncated: boolean }
export interface HPKVAtomicResponse extends HPKVBaseResponse { success: boolean; key?: string; newValue: number }

export interface HPKVErrorResponse extends HPKVBaseResponse { error: string }
export type HPKVResponse = HPKVGetResponse | HPKVSetResponse | HPKVPatchResponse | HPKVDeleteResponse | HPKVRangeResponse
  | HPKVAtomicResponse | HPKVNotificationResponse | HPKVErrorResponse;
export interface HPKVRequestMessage {
  op: HPKVOperation; key: string; value?: string | number; messageId?: number; endKey?: string; limit?: number;
}

export interface HPKVNotificationResponse {
  type: 'notification';
  key: string;
  /** null: it was deleted */
  value: string | number | null;
  timestamp: number;
  /** The value was read for the subscription: nothing need have changed */
  initial?: boolean;
  /** It changed while there was no connection to the service */
  resync?: boolean;
  /** This change has replaced so many that were not read in time */
  skipped?: number;
}

/** Changes of a key, or of keys that match a pattern, may have been missed: read them anew. */
export interface HPKVGap { type: 'gap'; key?: string; pattern?: string; since?: number; until?: number }
/** A connection was lost, or is back: this program's to the daemon, or the daemon's to the service. */
export interface HPKVConnectionEvent { type: 'connection'; state: 'connected' | 'disconnected'; to: 'daemon' | 'service'; timestamp: number }
/** The access rules have ended a subscription. */
export interface HPKVEnded { type: 'unsubscribed'; key?: string; pattern?: string; reason?: string }
export type HPKVEvent = HPKVNotificationResponse | HPKVGap | HPKVConnectionEvent | HPKVEnded;

export type HPKVEventHandler = (data: HPKVNotificationResponse) => void;
export interface RangeQueryOptions { limit?: number }
export interface HPKVTokenConfig { subscribePatterns?: string[]; subscribeKeys?: string[]; accessPattern?: string }
export interface WatchOptions { initial?: boolean }

export declare class HPKVError extends Error {
  constructor(message: string, code?: number, reason?: string, executed?: 'no' | 'unknown', retryAfterMs?: number);
  /** As the service or the daemon says: 404, 403, 503 … */
  code?: number;
  /** Of the daemon's own errors: 'forbidden', 'upstream_down' …; of this package's: 'no_daemon', 'connection_lost', 'timeout', 'closed' */
  reason?: string;
  /** 'unknown': a write that was sent, and whose answer never came. Look before you repeat it */
  executed: 'no' | 'unknown';
  /** When to try again, where somebody can tell */
  retryAfterMs?: number;
}
export declare class ConnectionError extends HPKVError {}
export declare class TimeoutError extends HPKVError {}
export declare class AuthenticationError extends HPKVError {}

export type ClientEvent = 'connected' | 'disconnected' | 'reconnecting' | 'reconnectFailed' | 'error' | 'gap' | 'connection' | 'unsubscribed';

export declare abstract class BaseWebSocketClient {
  get(key: string, timeoutMs?: number): Promise<HPKVGetResponse>;
  set(key: string, value: unknown, partialUpdate?: boolean, timeoutMs?: number): Promise<HPKVSetResponse | HPKVPatchResponse>;
  delete(key: string, timeoutMs?: number): Promise<HPKVDeleteResponse>;
  range(key: string, endKey: string, options?: RangeQueryOptions, timeoutMs?: number): Promise<HPKVRangeResponse>;
  atomicIncrement(key: string, value: number, timeoutMs?: number): Promise<HPKVAtomicResponse>;
  /** Any request of hpkvd's protocol */
  request(request: Record<string, unknown>, timeoutMs?: number): Promise<Record<string, unknown>>;
  /** All records whose keys begin with prefix */
  scan(prefix?: string): AsyncGenerator<{ key: string; value: string }, void, undefined>;
  /** What happens to keys and patterns (words with a *) */
  watch(...words: string[]): Subscription;
  watch(...wordsAndOptions: [...string[], WatchOptions]): Subscription;
  status(): Promise<Record<string, unknown>>;
  stats(): Promise<Record<string, number>>;
  connect(): Promise<void>;
  /** false: what is under way is waited for */
  disconnect(cancelPendingRequests?: boolean): Promise<void>;
  destroy(): void;
  getConnectionState(): ConnectionState;
  getConnectionStats(): ConnectionStats;
  on(event: ClientEvent, listener: (...args: any[]) => void): void;
  off(event: ClientEvent, listener: (...args: any[]) => void): void;
  getThrottlingStatus(): { enabled: boolean; config: ThrottlingConfig; metrics: ThrottlingMetrics };
  updateThrottlingConfig(config: Partial<ThrottlingConfig>): void;
}

export declare class HPKVApiClient extends BaseWebSocketClient {
  constructor(apiKey?: string | null, baseUrl?: string | null, config?: ConnectionConfig);
}

export declare class HPKVSubscriptionClient extends BaseWebSocketClient {
  constructor(token?: string | null, baseUrl?: string | null, config?: ConnectionConfig);
  /** Returns the id of the callback */
  subscribe(callback: HPKVEventHandler): string;
  unsubscribe(callbackId: string): void;
}

export declare class HPKVClientFactory {
  static createApiClient(apiKey?: string | null, baseUrl?: string | null, config?: ConnectionConfig): HPKVApiClient;
  static createSubscriptionClient(token?: string | null, baseUrl?: string | null, config?: ConnectionConfig): HPKVSubscriptionClient;
}

export declare class WebsocketTokenManager {
  constructor(apiKey?: string | null, baseUrl?: string | null, config?: ConnectionConfig);
  generateToken(config: HPKVTokenConfig): Promise<string>;
}

/** For "for await"; ends when it is closed. */
export declare class Subscription implements AsyncIterableIterator<HPKVEvent> {
  constructor(options: { keys?: string[]; patterns?: string[]; initial?: boolean; socket?: string; timeoutMs?: number });
  /** Resolves when every change from now on is told */
  readonly ready: Promise<void>;
  close(): void;
  next(): Promise<IteratorResult<HPKVEvent, undefined>>;
  return(): Promise<IteratorResult<HPKVEvent, undefined>>;
  [Symbol.asyncIterator](): this;
}

/** The keys that match a pattern, and their values, as they are now. Events: change, stale, fresh, end. */
export declare class Mirror extends EventEmitter implements Iterable<[string, string]> {
  constructor(pattern: string, options?: { socket?: string });
  /** Resolves, to the mirror, when all is there */
  readonly ready: Promise<this>;
  readonly pattern: string;
  /** Changes may have been missed, and not all is read again yet */
  readonly stale: boolean;
  /** Why it has ended */
  readonly error?: HPKVError;
  readonly size: number;
  get(key: string): string | undefined;
  has(key: string): boolean;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  entries(): IterableIterator<[string, string]>;
  forEach(call: (value: string, key: string, mirror: this) => void): void;
  [Symbol.iterator](): IterableIterator<[string, string]>;
  close(): void;
  on(event: 'change', listener: (key: string, value: string | null) => void): this;
  on(event: 'stale' | 'fresh', listener: () => void): this;
  on(event: 'end', listener: (error?: HPKVError) => void): this;
}
