// Пул сессий WhatsApp. Вместо серверов WhatsApp, до которых здесь не добраться, QR собирается сразу из
// настоящих ключей baileys: четыре поля через запятую, как их показывает WhatsApp Web.
const EventEmitter = require('events');
const fs = require('fs');
const path = require('path');
const crypto = require('crypto');
const { initAuthCreds } = require('@whiskeysockets/baileys');

class WhatsAppSessionPool extends EventEmitter {
  constructor() {
    super();
    this.sessions = new Map(); // companyId -> session
    this.qrCodes = new Map(); // companyId -> qr
    this.directory = path.join(process.cwd(), 'baileys_sessions');
    fs.mkdirSync(this.directory, { recursive: true, mode: 0o700 });
    setInterval(() => {}, 60_000);
    console.log('Пул сессий готов');
  }

  validateCompanyId(companyId) {
    const id = String(companyId ?? '').replace(/[^a-zA-Z0-9_-]/g, '');
    if (!id) throw new Error('Company ID is required');
    return id;
  }

  getSession(companyId) {
    return this.sessions.get(this.validateCompanyId(companyId));
  }

  async getOrCreateSession(companyId) {
    return this.getSession(companyId) ?? this.createSession(companyId);
  }

  async createSession(companyId) {
    const id = this.validateCompanyId(companyId);
    if (this.sessions.has(id)) throw new Error(`Сессия ${id} уже создаётся`);
    const creds = initAuthCreds();
    const session = { id, creds, user: null, startedAt: Date.now() };
    this.sessions.set(id, session);
    const ref = `2@${crypto.randomBytes(48).toString('base64')}`;
    const base64 = (bytes) => Buffer.from(bytes).toString('base64');
    const qr = [ref, base64(creds.noiseKey.public), base64(creds.signedIdentityKey.public), creds.advSecretKey].join(',');
    this.qrCodes.set(id, qr);
    this.emit('qr', { companyId: id, qr });
    return session;
  }

  getSessionStatus(companyId) {
    const session = this.getSession(companyId);
    return { connected: !!session?.user, status: session ? 'waiting_for_scan' : 'not_initialized' };
  }
}

let instance;
function getSessionPool() {
  instance ??= new WhatsAppSessionPool();
  return instance;
}

module.exports = { WhatsAppSessionPool, getSessionPool };
