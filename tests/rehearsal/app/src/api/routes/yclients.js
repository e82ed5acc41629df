// Старые маршруты YClients. Свой /auth/yclients/redirect они отвечают первыми, если смонтированы раньше новых.
const express = require('express');

const router = express.Router();

router.get('/yclients/redirect', (req, res) => {
  if (!req.query.company_id) return res.status(400).json({ error: 'Missing company_id' });
  return res.redirect(302, `/landing?company_id=${Number(req.query.company_id)}`);
});

module.exports = router;
