const http = require('http');
const path = require('path');
const express = require('express');
const config = require('./config');
const { pool, redis } = require('./database');
const marketplace = require('./api/routes/yclients-marketplace');
const yclients = require('./api/routes/yclients');
const { attach } = require('./api/websocket/marketplace-socket');

const app = express();
app.use(express.json());
app.use('/landing', express.static(path.join(__dirname, '../public/landing')));

// "warning" — обычное состояние (например, фоновые приложения остановлены); 503 — когда нет redis или базы.
app.get('/health', async (req, res) => {
  const within = (promise) =>
    Promise.race([promise, new Promise((_, fail) => setTimeout(() => fail(new Error('timeout')), 20000).unref())]);
  const probe = (promise) => within(promise).then(() => 'ok', (error) => error.message);
  const [database, cache] = await Promise.all([
    probe(pool.query('select 1')),
    probe(redis.isReady ? redis.ping() : Promise.reject(new Error('not connected'))),
  ]);
  const healthy = database === 'ok' && cache === 'ok';
  res.status(healthy ? 200 : 503).json({
    status: healthy ? 'warning' : 'critical',
    checks: { database, redis: cache, workers: 'some workers are idle' },
    uptime: process.uptime(),
  });
});

app.use('/', marketplace);
app.use('/auth', yclients);

const server = http.createServer(app);
attach(server);
server.listen(config.port, () => console.log(`API слушает порт ${config.port}`));

// Как у настоящего: порт закрывается сразу, а процесс не выходит, и через 1.6 с pm2 его убивает.
process.on('SIGINT', () => {
  console.log('SIGINT: закрываю порт');
  server.close();
  server.closeAllConnections();
});
