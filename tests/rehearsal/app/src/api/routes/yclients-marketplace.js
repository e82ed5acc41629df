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
  if (!(salon > 0)) return res.status(400).json({ error: 'Не получен salon_id' });
  try {
    await database.query(
      `INSERT INTO companies (company_id, title, integration_status) VALUES ($1, $2, 'pending_whatsapp')
       ON CONFLICT (company_id) DO UPDATE SET integration_status = 'pending_whatsapp'`,
      [salon, `Салон ${salon}`],
    );
  } catch (error) {
    return res.status(503).json({ error: error.message });
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
  const sessions = getSessionPool();
  try {
    await sessions.getOrCreateSession(salon);
    return res.json({ success: true, qr: await sessions.getQR(salon) });
  } catch (error) {
    return res.status(500).json({ error: error.message });
  }
});

router.post('/webhook/yclients', (req, res) => res.json({ success: true }));
router.get('/callback/yclients', (req, res) => res.json({ success: true }));
router.get('/api/status', (req, res) => res.json({ api: 'ok' }));

module.exports = router;
