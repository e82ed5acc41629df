const { Server } = require('socket.io');
const jwt = require('jsonwebtoken');
const qrcode = require('qrcode');
const config = require('../../config');
const { getSessionPool } = require('../../integrations/whatsapp/session-pool');

function attach(server) {
  const io = new Server(server, { path: '/socket.io/' });
  const namespace = io.of('/marketplace');

  namespace.use((socket, next) => {
    try {
      socket.salon = jwt.verify(socket.handshake.auth.token, config.jwtSecret).salon_id;
      next();
    } catch {
      next(new Error('Недействительный токен'));
    }
  });

  // Подключение с токеном начинает сессию WhatsApp; второе для того же салона роняет процесс, как у настоящего.
  namespace.on('connection', async (socket) => {
    const pool = getSessionPool();
    const sessionId = `company_${socket.salon}`;
    pool.on('qr', async ({ companyId, qr }) => {
      if (companyId === sessionId) socket.emit('qr', { qr, image: await qrcode.toDataURL(qr, { width: 320 }) });
    });
    await pool.createSession(sessionId);
  });
  return io;
}

module.exports = { attach };
