# The requirements' "command for a quick check of everything", as it stands there
echo "=== Checking ENV variables ==="
grep -c "YCLIENTS_PARTNER_TOKEN" /opt/ai-admin/.env
grep -c "YCLIENTS_APP_ID" /opt/ai-admin/.env
grep -c "JWT_SECRET" /opt/ai-admin/.env

echo "=== Checking Node modules ==="
cd /opt/ai-admin && npm list socket.io jsonwebtoken 2>/dev/null | grep -E "(socket.io|jsonwebtoken)" | head -2

echo "=== Checking Nginx WebSocket ==="
grep -c "socket.io" /etc/nginx/sites-available/ai-admin.app

echo "=== Checking API status ==="
curl -s http://localhost:3000/health | head -1
