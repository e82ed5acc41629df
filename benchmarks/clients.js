// Five of socket.io's own clients, as it serves them to browsers, and the API's port: each change is a line of JSON.
// Run on the host by benchmarks/load.py. Without a token, in the default namespace: that has no side effect.
const https = require('https');
const net = require('net');
const modules = '/opt/ai-admin/node_modules';
const say = (who, what) => console.log(JSON.stringify({ at: Date.now() / 1000, who, what }));

// What a browser has and Node 20 lacks
globalThis.WebSocket = require(`${modules}/ws`);
globalThis.XMLHttpRequest = class {
  withCredentials = false;
  headers = {};
  open(method, url) {
    Object.assign(this, { method, url });
  }
  setRequestHeader(name, value) {
    this.headers[name] = value;
  }
  getResponseHeader(name) {
    return this.response?.headers[name.toLowerCase()] ?? null;
  }
  send(data) {
    const end = (status, text) => {
      Object.assign(this, { readyState: 4, status, responseText: text });
      this.onreadystatechange?.();
    };
    this.request = https.request(this.url, { method: this.method, headers: this.headers, agent: false }, (response) => {
      this.response = response;
      let text = '';
      response.setEncoding('utf8').on('data', (piece) => (text += piece));
      response.on('end', () => end(response.statusCode, text)).on('error', () => end(0, ''));
    });
    this.request.on('error', () => end(0, '')).end(data ?? undefined);
  }
  abort() {
    this.request?.destroy();
  }
};

const { io } = require(`${modules}/socket.io/client-dist/socket.io.js`);
const transports = [['polling', 'websocket'], ['polling', 'websocket'], ['websocket'], ['websocket'], ['polling']];
for (const [number, own] of transports.entries()) {
  const socket = io('https://ai-admin.app', { transports: own, forceNew: true });
  const who = `${number + 1} (${own})`;
  socket.on('connect', () => say(who, 'connect'));
  socket.on('disconnect', (why) => say(who, `disconnect: ${why}`));
  socket.on('connect_error', (error) => say(who, `error: ${error.message}`));
}

let was;
const look = () => {
  const socket = net.connect(3000, '127.0.0.1');
  const end = (is) => {
    socket.destroy();
    if (is !== was) say('port', is);
    was = is;
    setTimeout(look, 20);
  };
  socket.on('connect', () => end('open')).on('error', () => end('closed'));
};
look();
setTimeout(() => process.exit(0), 600000); // where nobody ends it
