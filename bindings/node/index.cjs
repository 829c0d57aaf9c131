'use strict';
const { AuthenticationError, ConnectionError, HPKVError, TimeoutError } = require('./lib/wire.cjs');
const { Subscription } = require('./lib/subscription.cjs');
const client = require('./lib/client.cjs');
const { Mirror } = require('./lib/mirror.cjs');

module.exports = { ...client, AuthenticationError, ConnectionError, HPKVError, Mirror, Subscription, TimeoutError };
