// Signs a token with the host's own JWT_SECRET and requests a QR code from the API, through nginx and TLS. Prints neither
// the secret nor the QR code: whoever scans it takes over the salon's WhatsApp.
const { folder, domain, address, secret, salon } = JSON.parse(process.argv[1]);
const app = require('module').createRequire(`${folder}/`);
const key = app('dotenv').parse(require('fs').readFileSync(`${folder}/.env`))[secret];
const token = app('jsonwebtoken').sign({ salon_id: salon }, key, { expiresIn: '5m' });
const said = (found) => console.log(JSON.stringify(found));
const request = require('https').request({
  host: address, servername: domain, rejectUnauthorized: false, timeout: 30_000,
  method: 'POST', path: '/marketplace/api/qr',
  headers: { Host: domain, Origin: `https://${domain}`, Authorization: `Bearer ${token}` },
}, (response) => {
  let body = '';
  response.on('data', (chunk) => (body += chunk)).on('end', () => {
    let answer = {};
    try { answer = JSON.parse(body); } catch {}
    const qr = String(answer.qr ?? '');
    const found = `QR ${qr.length} characters in ${qr.split(',').length} fields`;
    said(qr ? found : `${response.statusCode} ${answer.error ?? ''}`);
  });
});
request.on('timeout', () => request.destroy(new Error('no answer within 30 s')));
request.on('error', (error) => said(error.message)).end();
