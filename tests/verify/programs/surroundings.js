// What the application needs around it, asked as it would itself: by its own .env, with its own modules. Nothing is
// written, and no value of .env is printed.
const fs = require('fs');
const net = require('net');
const path = require('path');
const tls = require('tls');
const { createRequire } = require('module');

const { folder, domain, outbound, columns } = JSON.parse(process.argv[1]);
const TIMEOUT = 15000; // ms
const app = createRequire(`${folder}/`);
const values = app('dotenv').parse(fs.readFileSync(`${folder}/.env`));
Object.assign(process.env, { ...values, ...process.env }); // as dotenv does: pg and TLS have variables of their own
const given = (...names) => names.map((name) => values[name]).find(Boolean);
const address = (...names) => names.map((name) => values[name]).filter((each) => URL.canParse(each ?? '')).map((each) => new URL(each))[0];

const [cache, sql] = [address('REDIS_URL'), address('DATABASE_URL', 'POSTGRES_URL')];
const ofCache = { host: cache?.hostname ?? given('REDIS_HOST'), port: Number(cache?.port || given('REDIS_PORT') || 6379) };
const ofSql = {
  host: sql?.hostname ?? given('DATABASE_URL', 'POSTGRES_URL', 'POSTGRES_HOST', 'DB_HOST', 'PGHOST'),
  port: Number(sql?.port || given('POSTGRES_PORT', 'DB_PORT', 'PGPORT') || 5432),
};
// the port where it is this host's own, else 0; a host that is not named is the application's own default
const portHere = ({ host, port }) => (/^(localhost|127\.|::1|\/|$)/.test(host?.replace(/^\[/, '') ?? '') ? port : 0);
const here = { redis: portHere(ofCache), postgresql: portHere(ofSql) };

// redis (8.0) refuses SETRANGE as any write, where it refuses writes; with no text and no such key it makes none
const redis = () => new Promise((done) => {
  if (!ofCache.host) return done('');
  const where = { ...ofCache, timeout: TIMEOUT };
  const socket = cache?.protocol === 'rediss:' ? tls.connect({ ...where, servername: where.host }) : net.connect(where);
  const password = decodeURIComponent(cache?.password ?? '') || given('REDIS_PASSWORD');
  const user = cache ? decodeURIComponent(cache.username) : given('REDIS_USERNAME', 'REDIS_USER');
  const orders = [...(password ? [['AUTH', ...(user ? [user] : []), password]] : []), ['SETRANGE', 'verification:none', '0', '']];
  let said = '';
  socket.on('data', (data) => {
    said += data;
    const lines = said.split('\r\n').slice(0, -1);
    const refused = lines.find((line) => line.startsWith('-'));
    if (refused || lines.length >= orders.length) socket.destroy(), done((refused ?? '').slice(1, 150));
  });
  for (const event of ['error', 'timeout']) socket.on(event, () => { socket.destroy(); done(''); }); // /health says so
  const bulk = (word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
  socket.write(orders.map((words) => `*${words.length}\r\n${words.map(bulk).join('')}`).join(''));
});

const SESSION = `SELECT current_database() AS name, current_user AS role, pg_is_in_recovery() AS standby,
  (SELECT CASE setting WHEN 'on' THEN source ELSE '' END FROM pg_settings WHERE name = 'default_transaction_read_only')
    AS readonly, to_regclass('companies') IS NOT NULL AS companies,
  ARRAY(SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('companies') AND attname = name AND NOT attisdropped)) AS lacking`;
// null where it has none, or none that can be asked: /health says so
const database = async () => {
  const url = given('DATABASE_URL', 'POSTGRES_URL');
  const host = given('POSTGRES_HOST', 'DB_HOST', 'PGHOST'); // of .env alone: our own environment may name another
  if (!url && !host) return null;
  const [port, name] = [given('POSTGRES_PORT', 'DB_PORT', 'PGPORT'), given('POSTGRES_DATABASE', 'POSTGRES_DB', 'DB_NAME', 'DB_DATABASE', 'PGDATABASE')];
  const [user, password] = [given('POSTGRES_USER', 'DB_USER', 'PGUSER'), given('POSTGRES_PASSWORD', 'DB_PASSWORD', 'PGPASSWORD')];
  const where = url ? { connectionString: url } : { host, port, database: name, user, password };
  try {
    const client = new (app('pg').Client)({ ...where, connectionTimeoutMillis: TIMEOUT, query_timeout: TIMEOUT });
    client.on('error', () => {});
    await client.connect();
    return (await client.query(SESSION, [columns])).rows[0];
  } catch (error) {
    return here.postgresql ? null : { refused: (error.message || error.code || 'no answer').slice(0, 100) };
  }
};

// https addresses of .env whose key some file of src names; but for those of the application itself
const OWN = /^(BASE|APP|SITE|PUBLIC|FRONTEND|WEBHOOK|CALLBACK|REDIRECT)_/;
const source = () => {
  const all = fs.readdirSync(`${folder}/src`, { withFileTypes: true, recursive: true });
  const code = all.filter((each) => each.isFile() && /\.[cm]?[jt]s$/.test(each.name));
  return code.map((each) => fs.readFileSync(path.join(each.parentPath ?? each.path, each.name), 'utf8')).join('\n');
};
const proxied = Boolean(given('HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy'));
const needed = () => {
  if (proxied) return []; // it may have no other way out
  const entries = Object.entries(values).filter(([key]) => !OWN.test(key));
  const urls = entries.filter(([, value]) => /^https:/.test(value) && URL.canParse(value));
  const text = urls.length ? source() : '';
  const read = urls.filter(([key]) => new RegExp(`\\b${key}\\b`).test(text)).map(([, value]) => new URL(value));
  const foreign = read.filter((url) => ![domain, `www.${domain}`, 'localhost', '127.0.0.1'].includes(url.hostname));
  return [...new Set([...outbound, ...foreign.map((url) => `${url.hostname}:${url.port || 443}`)])];
};
const reach = (place) => new Promise((done) => {
  const [, host, port] = place.match(/^(.*):(\d+)$/);
  const socket = tls.connect({ host, port, servername: host, timeout: TIMEOUT }, () => { socket.destroy(); done(['', '']); });
  socket.on('timeout', () => { socket.destroy(); done(['ETIMEDOUT', `no answer within ${TIMEOUT / 1000} s`]); });
  socket.on('error', (error) => done([error.code ?? '', error.message.slice(0, 100)]));
});

(async () => {
  const places = needed();
  const [ofRedis, ofDatabase, ...reached] = await Promise.all([redis(), database(), ...places.map(reach)]);
  const failed = Object.fromEntries(places.map((place, n) => [place, reached[n]]).filter(([, [code, why]]) => code || why));
  console.log(JSON.stringify({ redis: ofRedis, database: ofDatabase, failed, here, proxied }));
  process.exit(0);
})();
