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
import net from 'node:net';

const SOCKET = process.env.HPKVD_SOCKET ?? '/run/hpkvd/hpkvd.sock';

/** One request, one answer, one connection: tokens are rare. */
function ask(request) {
  return new Promise((resolve, reject) => {
    let received = '';
    const socket = net.createConnection(SOCKET).setEncoding('utf8').setTimeout(30000);
    socket.on('data', (chunk) => (received += chunk));
    socket.on('end', () => (received.endsWith('\n') ? resolve(JSON.parse(received)) : reject(new Error('no answer'))));
    socket.on('timeout', () => socket.destroy(new Error('hpkvd does not answer')));
    socket.on('error', reject);
    socket.end(JSON.stringify(request) + '\n');
  });
}

/** Who is it? Here goes your login: a session cookie, say. The browser must not choose whose keys it may read. */
function userOf(request) {
  const match = /^Bearer demo-(\d+)$/.exec(request.headers.authorization ?? '');
  return match && match[1];
}

// [token]
async function token(user) {
  const answer = await ask({ op: 'token', subscribePatterns: [`app:user:${user}:*`, 'app:public:*'] });
  if (answer.code !== 200) throw new Error(`${answer.code} ${answer.reason ?? ''}: ${answer.error}`);
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
    console.error(`no token for user ${user}: ${e.message}`);
    reply(503, { error: 'try again later' });
  }
});
// [end]

server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => console.log(`listening on port ${server.address().port}`));
