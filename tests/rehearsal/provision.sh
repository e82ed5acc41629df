# Runs once inside the image, as root, with the stand-in application already in /opt/ai-admin.
export DEBIAN_FRONTEND=noninteractive npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false

# --- servers elsewhere, which elsewhere.service stands in for; no real one is ever asked
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=api.rehearsal.test \
  -addext subjectAltName=DNS:api.rehearsal.test -keyout /etc/ssl/private/elsewhere.key \
  -out /usr/local/share/ca-certificates/elsewhere.crt
echo '127.0.0.1 api.rehearsal.test api.yclients.com web.whatsapp.com' >> /etc/hosts
systemctl enable elsewhere.service certbot.timer
update-ca-certificates

# --- the application and pm2
cd /opt/ai-admin
chmod 600 .env
npm ci --omit=dev
npm install --global pm2@7.0.4

# --- PostgreSQL: table companies, 21 columns, 20 rows
pg_ctlcluster 17 main start
runuser -u postgres -- psql -X -v ON_ERROR_STOP=1 -q -d postgres <<'SQL'
CREATE ROLE ai_admin LOGIN PASSWORD 'pg#pa$$ "quoted"';
CREATE TABLE companies (
  id serial PRIMARY KEY,
  company_id integer UNIQUE,
  yclients_id integer UNIQUE,
  name text NOT NULL,
  phone text,
  email text,
  address text,
  city text DEFAULT 'Москва',
  country text DEFAULT 'Россия',
  timezone text DEFAULT 'Europe/Moscow',
  currency text DEFAULT 'RUB',
  working_hours jsonb DEFAULT '{"from": "09:00", "to": "21:00"}',
  coordinate_lat numeric(9, 6),
  coordinate_lon numeric(9, 6),
  business_type text DEFAULT 'salon',
  description text,
  logo_url text,
  is_active boolean DEFAULT true,
  last_sync_at timestamptz,
  created_at timestamptz DEFAULT now(),
  updated_at timestamptz DEFAULT now()
);
INSERT INTO companies (company_id, yclients_id, name) SELECT n, 900000 + n, 'Салон №' || n FROM generate_series(1, 16) n;
INSERT INTO companies (yclients_id, name, description) VALUES
  (962302, 'Салон "Мастер"', 'кавычки'),
  (962303, 'L''Oréal O''Clock', 'апострофы'),
  (962304, 'Стрижка; укладка; SELECT 1;', 'точки с запятой'),
  (962305, 'Барбершоп 💈 «Борода»', 'эмодзи');
ALTER TABLE companies OWNER TO ai_admin;
SQL
pg_ctlcluster 17 main stop

# --- redis with a password
printf 'requirepass "r#dis-Пароль=="\n' >> /etc/redis/redis.conf

# --- TLS where certbot would put it
live=/etc/letsencrypt/live/ai-admin.app
mkdir -p "$live"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=ai-admin.app \
  -addext subjectAltName=DNS:ai-admin.app,DNS:www.ai-admin.app -keyout "$live/privkey.pem" -out "$live/fullchain.pem"
chmod 600 "$live/privkey.pem"
rm -f /etc/nginx/sites-enabled/default

# --- pm2 under systemd, seven apps known to it; one of them stopped, as an operator left it
pm2 start ecosystem.config.js
pm2 stop ai-admin-telegram-bot
pm2 save
pm2 startup systemd -u root --hp /root || true
pm2 kill
systemctl enable pm2-root.service systemd-networkd.service ssh.service
systemctl disable pgbouncer.service  # tests/converge/test_hosted_database.py starts it
test -f /etc/systemd/system/pm2-root.service

rm -rf logs/*.log baileys_sessions /root/.npm /root/.pm2/logs/* /root/.pm2/pm2.log
echo rehearsal > /etc/hostname
