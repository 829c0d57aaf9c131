#!/usr/bin/env node
// token-server.mjs - a web backend that gives a browser an HPKV token, without ever seeing the API key.
//
// With its token a browser listens to the changes of its user's keys, and does nothing else: it asks the backend to write. hpkvd
// needs a rule that grants such tokens to the user that this runs as (in hpkvd.conf):
//
//   [access tokens]
//   user = www-tokens
//   read = app:public:* app:user:*
//   token = own
import http from 'node:http';
import { HPKVClientFactory } from 'hpkvd';

const hpkv = HPKVClientFactory.createApiClient();

/** Who is it? Here goes your login: a session cookie, say. The browser must not choose whose keys it may read. */
function userOf(request) {
  const match = /^Bearer demo-(\d+)$/.exec(request.headers.authorization ?? '');
  return match && match[1];
}

// [token]
async function token(user) {
  const answer = await hpkv.request({ op: 'token', subscribePatterns: [`app:user:${user}:*`, 'app:public:*'] });
  return answer.token;
}

const server = http.createServer(async (request, response) => {
  const reply = (status, body) =>
    response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' }).end(JSON.stringify(body));
  if (request.method !== 'POST' || request.url !== '/api/token') return reply(404, { error: 'not found' });
  const user = userOf(request);
  if (!user) return reply(401, { error: 'log in first' });
  try {
    reply(200, { token: await token(user) });
  } catch (e) {
    console.error(`no token for user ${user}: ${e.code} ${e.reason ?? ''}: ${e.message}`);
    reply(503, { error: 'try again later' });
  }
});
// [end]

server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => console.log(`listening on port ${server.address().port}`));
