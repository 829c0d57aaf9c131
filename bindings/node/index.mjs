import hpkvd from './index.cjs';

export const {
  AuthenticationError, BaseWebSocketClient, ConnectionError, ConnectionState, HPKVApiClient, HPKVClientFactory, HPKVError,
  HPKVOperation, HPKVSubscriptionClient, Mirror, Subscription, TimeoutError, WebsocketTokenManager,
} = hpkvd;
