#!/usr/bin/env node
// mirror.mjs PREFIX - keeps a copy of all keys that begin with PREFIX, and prints each change of it.
// [mirror]
import { Mirror } from 'hpkvd';

const mirror = new Mirror(`${process.argv[2]}*`); // a Map: mirror.get('app:color'), mirror.size …
mirror.on('change', (key, value) => console.log(value === null ? `${key} is gone` : `${key} = ${value}`));
mirror.on('end', (error) => {
  console.error(error.message); // the access rules forbid it, say
  process.exitCode = 1;
});
// [end]
