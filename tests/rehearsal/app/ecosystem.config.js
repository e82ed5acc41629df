// Семь приложений; порт слушает только ai-admin-api.
const app = (name, script) => ({
  name,
  script,
  cwd: '/opt/ai-admin',
  exec_mode: 'fork',
  instances: 1,
  autorestart: true,
  max_restarts: 10,
  out_file: `logs/${name}-out.log`,
  error_file: `logs/${name}-error.log`,
  env: { NODE_ENV: 'production' },
});

module.exports = {
  apps: [
    app('ai-admin-api', 'src/index.js'),
    app('ai-admin-worker-v2', 'src/workers/idle.js'),
    app('ai-admin-batch-processor', 'src/workers/idle.js'),
    app('ai-admin-booking-monitor', 'src/workers/idle.js'),
    app('ai-admin-telegram-bot', 'src/workers/idle.js'),
    app('whatsapp-backup-service', 'src/workers/idle.js'),
    app('whatsapp-safe-monitor', 'src/workers/idle.js'),
  ],
};
