#!/usr/bin/env node
// count.mjs KEY - counts something, with the Node package of hpkvd (bindings/node).
// [ask]
import { HPKVClientFactory } from 'hpkvd';

const hpkv = HPKVClientFactory.createApiClient();
try {
  console.log((await hpkv.atomicIncrement(process.argv[2], 1)).newValue);
} catch (e) {
  const unknown = e.executed === 'unknown'; // sent, and the answer never came: look before you repeat it
  console.error(`${unknown ? 'perhaps' : 'not'} counted: ${e.message}`);
  process.exitCode = unknown ? 2 : 1;
} finally {
  await hpkv.disconnect();
}
// [end]
