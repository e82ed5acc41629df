# The limit: what deploy.py reads before it can say "no change", read by hand in one ssh connection (sent on standard input).
cd /opt/ai-admin || exit 1
grep -cE '^(YCLIENTS_PARTNER_TOKEN|YCLIENTS_APP_ID|JWT_SECRET)=.' .env
for package in socket.io jsonwebtoken @whiskeysockets/baileys; do grep -m1 '"version"' node_modules/$package/package.json; done
grep -c health-check src/api/routes/yclients-marketplace.js
grep -cE 'getQR|createSession' src/integrations/whatsapp/session-pool.js
(cd / && runuser -u postgres -- psql -XAtc "select count(*) from information_schema.columns where table_name = 'companies'")
readlink /etc/nginx/sites-enabled/ai-admin.app
nginx -T 2>/dev/null | grep -c 'location /socket.io/'
find -L .env src node_modules/.package-lock.json -type f -newer $(ls /root/.pm2/pids/ai-admin-api-*.pid)
find -L /etc/nginx -type f -newermt "$(ps -o lstart= -p $(pgrep -o -f 'nginx. worker process')) + 1 second"
curl -s http://localhost:3000/health
