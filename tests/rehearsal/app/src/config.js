// Читает .env один раз, при старте: новые значения увидит только перезапущенный процесс.
require('dotenv').config({ quiet: true });

// Без JWT_SECRET приложение молча подписывает общеизвестным значением, как и настоящее.
const PLACEHOLDERS = ['test_token_waiting_for_real', 'ваш_partner_token_от_yclients'];

module.exports = {
  port: Number(process.env.PORT || 3000),
  jwtSecret: process.env.JWT_SECRET || 'a-secret-that-only-this-source-knows-2025',
  partnerToken: process.env.YCLIENTS_PARTNER_TOKEN,
  appId: process.env.YCLIENTS_APP_ID,
  hasPartnerToken:
    !!process.env.YCLIENTS_PARTNER_TOKEN && !PLACEHOLDERS.includes(process.env.YCLIENTS_PARTNER_TOKEN),
  supabaseUrl: process.env.SUPABASE_URL,
  postgres: {
    host: process.env.POSTGRES_HOST,
    port: Number(process.env.POSTGRES_PORT || 5432),
    database: process.env.POSTGRES_DATABASE,
    user: process.env.POSTGRES_USER,
    password: process.env.POSTGRES_PASSWORD,
    connectionTimeoutMillis: 20000,
  },
  redis: {
    url: `redis://${process.env.REDIS_HOST || '127.0.0.1'}:${process.env.REDIS_PORT || 6379}`,
    password: process.env.REDIS_PASSWORD,
    socket: { connectTimeout: 20000, reconnectStrategy: (n) => Math.min(n * 100, 2000) },
  },
};
