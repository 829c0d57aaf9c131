// A program that uses each type once; it is compiled, and never run.
import {
  ConnectionConfig, ConnectionState, HPKVApiClient, HPKVClientFactory, HPKVError, HPKVErrorResponse, HPKVEvent, HPKVNotificationResponse,
  HPKVRequestMessage, HPKVResponse, Mirror, RetryConfig, WebsocketTokenManager,
} from 'hpkvd';

// Types that the SDK exports as well.
export type Names = [ConnectionConfig, HPKVErrorResponse, HPKVRequestMessage, HPKVResponse, RetryConfig];

export async function use(): Promise<void> {
  const client: HPKVApiClient = HPKVClientFactory.createApiClient('key', 'url', { socket: '/run/hpkvd/hpkvd.sock', timeoutMs: 5000 });
  const value: string | number = (await client.get('a')).value;
  const sum: number = (await client.atomicIncrement('n', 1)).newValue;
  for await (const record of client.scan('a:')) console.log(record.key, record.value, value, sum);
  for await (const event of client.watch('a:*', { initial: true })) {
    const any: HPKVEvent = event;
    if (any.type === 'notification' && any.skipped) console.log(any.key, any.value);
    if (any.type === 'gap') console.log(any.pattern);
  }
  const subscription = HPKVClientFactory.createSubscriptionClient(await new WebsocketTokenManager('k', 'u').generateToken({ subscribePatterns: ['a:*'] }), 'u');
  const id: string = subscription.subscribe((event: HPKVNotificationResponse) => console.log(event.key));
  subscription.unsubscribe(id);
  const mirror = await new Mirror('a:*').ready;
  mirror.on('change', (key, changed) => console.log(key, changed?.length));
  const text: string | undefined = mirror.get('a:1');
  if (client.getConnectionState() === ConnectionState.CONNECTED) console.log(text, [...mirror.keys()]);
  try {
    await client.set('a', 1);
    await client.disconnect(false);
  } catch (e) {
    if (e instanceof HPKVError && e.executed === 'unknown') console.log(e.code, e.reason, e.retryAfterMs);
  }
}
