// The real socket.io client, which comes with the server, over WebSocket only. No token, and the default namespace: with
// a token, a WhatsApp session would start.
const path = require('path');
const { createRequire } = require('module');

const { folder, domain, address, browser } = JSON.parse(process.argv[1]);
const done = (said) => { console.log(JSON.stringify(said)); process.exit(0); };
const home = path.join(folder, 'node_modules/socket.io');
const Ws = createRequire(createRequire(`${home}/`).resolve('engine.io'))('ws');
const here = { address, family: address.includes(':') ? 6 : 4 };
const lookup = (name, options, found) => (options.all ? found(null, [here]) : found(null, here.address, here.family));
globalThis.WebSocket = class extends Ws {
  constructor(url, protocols) {
    const headers = { 'User-Agent': browser, Origin: `https://${domain}` };
    super(url, protocols, { lookup, rejectUnauthorized: false, headers });
  }
};
const { io } = require(`${home}/client-dist/socket.io.js`);
const client = io(`https://${domain}`, { transports: ['websocket'], reconnection: false, timeout: 15000 });
client.on('connect', () => done(`connected by ${client.io.engine.transport.name}`));
client.on('connect_error', (error) => done(error.description?.message ?? error.message));
