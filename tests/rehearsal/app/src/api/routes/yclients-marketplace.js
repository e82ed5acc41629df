// Маршруты YClients Marketplace; монтируется в корень.
const path = require('path');
const express = require('express');
const jwt = require('jsonwebtoken');
const config = require('../../config');
const { pool: database } = require('../../database');
const { getSessionPool } = require('../../integrations/whatsapp/session-pool');

const router = express.Router();

router.get('/auth/yclients/redirect', async (req, res) => {
  if (!config.hasPartnerToken) return res.status(503).json({ error: 'Интеграция не настроена: нет partner token' });
  const salon = Number.parseInt(req.query.salon_id, 10);
  if (!(salon > 0)) return res.status(400).send('<h1>Ошибка подключения</h1><p>Не получен ID салона</p>');
  try {
    await database.query(
      `INSERT INTO companies (yclients_id, name, phone, email, address, integration_status, marketplace_user_id,
         marketplace_user_name, marketplace_user_phone, marketplace_user_email, connected_at)
       VALUES ($1, $2, $3, $4, $5, 'pending_whatsapp', $6, $7, $8, $9, now())
       ON CONFLICT (yclients_id) DO UPDATE SET integration_status = 'pending_whatsapp', connected_at = now()`,
      [salon, `Салон ${salon}`, '', '', '', req.query.user_id, req.query.user_name, req.query.user_phone, ''],
    );
  } catch (error) {
    console.error('companies:', error.message);
    return res.status(500).send('Ошибка сохранения данных');
  }
  const token = jwt.sign({ salon_id: salon }, config.jwtSecret, { expiresIn: '1h' });
  return res.redirect(302, `/marketplace/onboarding?token=${token}`);
});

router.get('/marketplace/onboarding', (req, res) => {
  if (!req.query.token) return res.status(400).send('Нет токена');
  return res.sendFile(path.join(__dirname, '../../../public/marketplace/onboarding.html'));
});

router.post('/marketplace/api/qr', async (req, res) => {
  let salon;
  try {
    salon = jwt.verify((req.headers.authorization || '').replace(/^Bearer /, ''), config.jwtSecret).salon_id;
  } catch {
    return res.status(401).json({ error: 'Нет или неверный токен' });
  }
  // Как у настоящего: метод, которого в пуле никогда не было.
  const sessionPool = getSessionPool();
  const sessionId = `company_${salon}`;
  try {
    if (!sessionPool.getSession(sessionId)) {
      await sessionPool.initSession(sessionId, { company_id: salon, salon_id: salon });
    }
    return res.json({ success: true, qr: await sessionPool.getQR(sessionId) });
  } catch (error) {
    return res.status(500).json({ error: error.message });
  }
});

router.post('/webhook/yclients', (req, res) => res.json({ success: true }));
router.get('/callback/yclients', (req, res) => res.json({ success: true }));
router.get('/api/status', (req, res) => res.json({ api: 'ok' }));

module.exports = router;
