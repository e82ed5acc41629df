// The part of probe.sh that needs the application's modules, HTTP or /proc. Of a secret it prints kind and length only.
const fs = require('fs');
const http = require('http');
const https = require('https');
const path = require('path');
const tls = require('tls');
const { X509Certificate, createHmac } = require('crypto');
const { execFile } = require('child_process');
const { createRequire } = require('module');
const { deflateSync } = require('zlib');

const { APP_DIR, API_APP, API_PORT, DOMAIN, SITE, SITE_ADDRESS, PM2_HOME } = process.env;
const { keys, packages, publicDefaults, healthCheck, ...rules } = JSON.parse(process.env.RULES); // rules.py
const placeholder = new RegExp(rules.placeholder, 'iu');

const say = (name, ...values) => console.log(`${name}\t${values.join(' ').replace(/\s+/g, ' ').slice(0, 300)}`);
const app = createRequire(`${APP_DIR}/`);
const text = (file) => fs.readFileSync(file, 'utf8');
/** A reading that fails prints no value. Its checks then report that it could not be read, and this error. */
const part = (read) =>
  Promise.resolve()
    .then(read)
    .catch((error) => console.error(`probe: ${error.message.split('\n')[0]}`));

const below = (folder) =>
  fs.readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((each) => each.isFile())
    .map((each) => path.join(each.parentPath ?? each.path, each.name));

// --- the source: what speaks of the marketplace, whole, for contract.py
const sources = (fs.existsSync(`${APP_DIR}/src`) ? below(`${APP_DIR}/src`) : [])
  .filter((file) => /\.[cm]?[jt]s$/.test(file) && fs.statSync(file).size < 500_000);
part(() => {
  const mention = new RegExp(rules.mention);
  const concerned = sources.filter((file) => file.endsWith(rules.sessionPool) || mention.test(text(file)));
  const contents = Object.fromEntries(concerned.map((file) => [path.relative(APP_DIR, file), text(file)]));
  console.log(`source\t${deflateSync(JSON.stringify(contents)).toString('base64')}`);
});

// a secret that stands in the source is a default that everybody can read
const isPublic = (secret) => publicDefaults.includes(secret) || sources.some((file) => text(file).includes(secret));

// --- .env, read by the application's own parser
const values = {};
part(() => {
  const content = text(`${APP_DIR}/.env`);
  Object.assign(values, app('dotenv').parse(content));
  for (const key of keys) {
    const value = values[key]?.trim();
    const glued = new RegExp(`^[^#\\n]*[^#\\s]${key}=`, 'm').test(content);
    const kind =
      value === undefined ? (glued ? 'glued' : 'absent')
      : value === '' ? 'empty'
      : placeholder.test(value) ? 'placeholder'
      : key === rules.secret && isPublic(value) ? 'public'
      : 'set';
    say(`env.${key}`, kind, value?.length ?? 0);
  }
  const url = [values.DATABASE_URL].find((each) => URL.canParse(each ?? ''));
  say('database.role', values.POSTGRES_USER ?? values.DB_USER ?? (url ? new URL(url).username : ''));
});

// --- HTTP: `status content-type location body`
function ask(name, module, options) {
  return new Promise((resolve) => {
    const answer = (...values) => resolve(say(name, ...values));
    const whole = { host: '127.0.0.1', timeout: 5000, rejectUnauthorized: false, ...options };
    const request = module.request(whole, (response) => {
      const type = (response.headers['content-type'] ?? '-').split(';')[0];
      if (options.onResponse) options.onResponse(response);
      let body = '';
      response.setEncoding('utf8').on('data', (chunk) => (body += chunk));
      const location = response.headers.location?.split('?')[0] ?? '-'; // the query may hold a token
      response.on('end', () => answer(response.statusCode, type, location, options.shorten?.(body) ?? body));
    });
    request.on('upgrade', (response, socket) => socket.destroy(answer(response.statusCode, '-', '-')));
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', (error) => answer('000', '-', '-', error.code ?? error.message)).end();
  });
}
const direct = (name, path, more) => ask(`direct.${name}`, http, { port: API_PORT, path, ...more });
const site = (name, path, more) => {
  const headers = { Host: DOMAIN, ...more?.headers };
  return ask(`site.${name}`, https, { host: SITE_ADDRESS, port: 443, servername: DOMAIN, path, ...more, headers });
};
const upgrade = {
  headers: {
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': 13,
    'Sec-WebSocket-Key': 'dmVyaWZpY2F0aW9uLTAxIQ==',
  },
};

direct('health', '/health');
// made by hand it may hold more than `say` prints
const environment = (body) => {
  try { return JSON.stringify({ environment: JSON.parse(body).environment }); } catch { return body; }
};
direct('health_check', healthCheck, { shorten: environment });
direct('qr_without_a_token', '/marketplace/api/qr', { method: 'POST' });
const invalid = { Authorization: 'Bearer verification' };
direct('qr_with_an_invalid_token', '/marketplace/api/qr', { method: 'POST', headers: invalid });
direct('socket', '/socket.io/?EIO=4&transport=polling');
direct('upgrade', '/socket.io/?EIO=4&transport=websocket', upgrade);
site('health_check', healthCheck);
site('redirect', '/auth/yclients/redirect'); // without salon_id: with one it writes to the database
site('onboarding_bare', '/marketplace/onboarding');
part(() => { // for no salon, and for a minute; a later version of the page refuses what is not signed
  const secret = values[rules.secret] ?? '';
  const claims = { salon_id: 0, exp: Math.floor(Date.now() / 1000) + 60 };
  const head = [{ alg: 'HS256', typ: 'JWT' }, claims].map((each) => Buffer.from(JSON.stringify(each)).toString('base64url'));
  const signature = createHmac('sha256', secret).update(head.join('.')).digest('base64url');
  return site('onboarding', `/marketplace/onboarding?token=${[...head, signature].join('.')}`);
});
site('socket', '/socket.io/?EIO=4&transport=polling');
site('upgrade', '/socket.io/?EIO=4&transport=websocket', upgrade);
site('landing', '/', {
  onResponse: (response) => {
    const served = response.socket.getPeerCertificate();
    part(() => {
      say('tls.days', Math.floor((Date.parse(served.valid_to) - Date.now()) / 86_400_000));
      say('tls.name', tls.checkServerIdentity(DOMAIN, served)?.message ?? 'matches');
      const file = new X509Certificate(text(`/etc/letsencrypt/live/${DOMAIN}/fullchain.pem`));
      say('tls.on_disk', file.fingerprint256 === served.fingerprint256 ? 'served' : 'not served');
    });
  },
});

// --- the real socket.io client, which comes with the server, over WebSocket only. No token, and the default namespace:
// with a token, a WhatsApp session would start.
part(() => {
  const folder = path.join(APP_DIR, 'node_modules/socket.io');
  const Ws = createRequire(createRequire(`${folder}/`).resolve('engine.io'))('ws');
  const here = { address: SITE_ADDRESS, family: SITE_ADDRESS.includes(':') ? 6 : 4 };
  const lookup = (name, options, done) => (options.all ? done(null, [here]) : done(null, here.address, here.family));
  globalThis.WebSocket = class extends Ws {
    constructor(url, protocols) {
      super(url, protocols, { lookup, rejectUnauthorized: false });
    }
  };
  const { io } = require(`${folder}/client-dist/socket.io.js`);
  const client = io(`https://${DOMAIN}`, { transports: ['websocket'], reconnection: false, timeout: 5000 });
  const done = (...values) => { say('site.client', ...values); client.close(); };
  client.on('connect', () => done('connected by', client.io.engine.transport.name));
  client.on('connect_error', (error) => done(error.description?.message ?? error.message));
});

// --- is what runs what is on disk? By a file's inode change time, which, unlike its modification time, cannot be set.
function started(pid) { // in ms since the epoch, precise to 20 ms: Linux counts 100 ticks a second
  const ticks = Number(text(`/proc/${pid}/stat`).split(') ').pop().split(' ')[19]);
  return Date.now() - (Number(text('/proc/uptime').split(' ')[0]) * 1000 - ticks * 10);
}
const changed = (file) => Math.max(fs.statSync(file).ctimeMs, fs.lstatSync(file).ctimeMs);
const newer = (files, since) => files.find((file) => fs.existsSync(file) && changed(file) > since) ?? '';
part(() => {
  const environment = (pid) => { // in cluster mode pm2 passes a worker's as JSON
    const all = pid && fs.existsSync(`/proc/${pid}`) ? text(`/proc/${pid}/environ`).split('\0') : [];
    const own = Object.fromEntries(all.map((each) => [each.split('=', 1)[0], each.slice(each.indexOf('=') + 1)]));
    return { ...own, ...JSON.parse(own.pm2_env ?? '{}') };
  };
  const folder = `${PM2_HOME}/pids`;
  const pids = (fs.existsSync(folder) ? fs.readdirSync(folder) : [])
    .filter((name) => name.startsWith(`${API_APP}-`) && /^\d+\.pid$/.test(name.slice(API_APP.length + 1)))
    .map((name) => text(`${folder}/${name}`).trim())
    // pm2's pid file may be older than its process, and the pid may belong to another one by now
    .filter((pid) => environment(pid).name === API_APP);
  say('pm2.pid', ...pids);
  if (pids.length === 0) return;
  say('pm2.cluster', pids.some((pid) => environment(pid).pm2_env) ? 'yes' : 'no');
  const since = Math.min(...pids.map(started)); // the oldest worker counts
  say('pm2.shadowed', ...keys.filter((key) => pids.some((pid) => key in environment(pid))));
  say('pm2.older_than_env', newer([`${APP_DIR}/.env`], since));
  say('pm2.older_than_source', newer(below(`${APP_DIR}/src`), since));
  const installed = ['.package-lock.json', ...packages.map((name) => `${name}/package.json`)];
  say('pm2.older_than_packages', newer(installed.map((name) => `${APP_DIR}/node_modules/${name}`), since));
});

part(() => { // how often the API exited in the last minute without a request to pm2
  const lines = text(`${PM2_HOME}/pm2.log`).slice(-50_000).split('\n');
  const recent = lines.filter((line) => new Date(line.slice(0, 19)) > Date.now() - 60_000);
  const count = (parts) => recent.filter((line) => parts.every((part) => line.includes(part))).length;
  say('pm2.crashes', count([`App [${API_APP}:`, '] exited']) - count([`Stopping app:${API_APP} `]));
});

part(() => new Promise((resolve) => {
  execFile('nginx', ['-T'], { maxBuffer: 1e8 }, (error, stdout, stderr) => {
    const complaint = stderr.split('\n').find((line) => /\[(emerg|alert|crit)\]/.test(line)) ?? stderr;
    say('nginx.test', error ? complaint : 'successful');
    say('nginx.conflict', stderr.split('\n').find((line) => line.includes('conflicting server name')) ?? '');
    const [, ...parts] = stdout.split(/^# configuration file (.+):$/m); // names and texts, by turns
    const files = parts.filter((_, at) => at % 2 === 0);
    part(() => { // a copy that serves, in the place of a link to what one would edit
      const enabled = `/etc/nginx/sites-enabled/${SITE}`;
      const names = new RegExp(`^[^#]*server_name[^;]*\\s${DOMAIN.replace(/\./g, '\\.')}[\\s;]`, 'm');
      const first = files.find((_, at) => names.test(parts[2 * at + 1]) && /^[^#]*listen[^;]*443/m.test(parts[2 * at + 1]));
      say('nginx.enabled', first === enabled && !fs.lstatSync(enabled).isSymbolicLink() ? 'copy' : first ?? '');
    });
    part(() => {
      const master = text('/run/nginx.pid').trim();
      const serving = text(`/proc/${master}/task/${master}/children`).trim().split(' ')
        .filter((pid) => !text(`/proc/${pid}/cmdline`).includes('shutting down'));
      // the oldest worker counts: a crashed one is replaced by a newer one that has the master's old configuration
      say('nginx.newer', newer([...files, ...new Set(files.map(path.dirname))], Math.min(...serving.map(started))));
    });
    resolve();
  });
}));

// --- packages
part(() => {
  const wanted = JSON.parse(text(`${APP_DIR}/package.json`)).dependencies ?? {};
  const engines = [];
  for (const name of packages) {
    const file = `${APP_DIR}/node_modules/${name}/package.json`;
    const found = fs.existsSync(file) ? JSON.parse(text(file)) : {};
    say(`npm.${name}`, found.version ?? 'missing', wanted[name] ?? '-');
    if (found.engines?.node) engines.push([found.engines.node, name]);
  }
  const modules = fs.readdirSync(`${APP_DIR}/node_modules`);
  const scoped = (name) => fs.readdirSync(`${APP_DIR}/node_modules/${name}`).map((each) => `${name}/${each}`);
  const there = modules.flatMap((name) => (name.startsWith('@') ? scoped(name) : name));
  console.log(`npm.there\t${there.join(' ')}`);
  const major = (range) => Number(range.match(/\d+/)?.[0] ?? 0);
  const [range = '0', name = 'nothing'] = engines.sort(([a], [b]) => major(b) - major(a))[0] ?? [];
  say('node.wanted', major(range), name, range);
});
