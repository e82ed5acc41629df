# Everything that verification reads on the host, in one run: lines of `name<TAB>value`, one line a value, no secret in
# any. It only reads. The parts run side by side. Comes with APP_DIR, API_APP, API_PORT, DOMAIN, SITE set in front of it.
export LC_ALL=C.UTF-8
TAB=$(printf '\t')
say() { printf '%s\t%s\n' "$1" "$(printf %s "$2" | tr '\n\t' '  ' | cut -c1-300)"; }
local_url=http://127.0.0.1:$API_PORT
site_url=https://$DOMAIN
through() { curl -sk --max-time 5 --resolve "$DOMAIN:443:127.0.0.1" --resolve "$DOMAIN:80:127.0.0.1" "$@"; }
handshake='/socket.io/?EIO=4&transport=polling'
upgrade() { # what a WebSocket's upgrade request is answered with: straight, and through nginx and TLS
    node -e '
    const [domain, port] = process.argv.slice(1);
    const ask = (name, module, more) => {
      const request = require(module).get({ host: "127.0.0.1", path: "/socket.io/?EIO=4&transport=websocket", timeout: 5000, ...more,
        headers: { Host: domain, Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": 13, "Sec-WebSocket-Key": "dmVyaWZpY2F0aW9uLTAxIQ==" } });
      const say = (text) => { console.log(`socket.${name}_upgrade\t${text}`); request.destroy(); };
      request.on("upgrade", (response) => say(response.statusCode)).on("response", (response) => say(response.statusCode));
      request.on("timeout", () => say("no answer")).on("error", (error) => error.code !== "ECONNRESET" && say(error.code));
    };
    ask("direct", "http", { port });
    ask("site", "https", { port: 443, servername: domain, rejectUnauthorized: false });
  ' "$DOMAIN" "$API_PORT"
}

# --- secrets: what kind of value the last assignment holds
env_key() {
    line=$(grep -E "^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*[=:]" "$APP_DIR/.env" 2>/dev/null | tail -n 1)
    value=$(printf %s "$line" | sed -E "s/^[^=:]*[=:][[:space:]]*//; s/^'(.*)'.*/\1/; t; s/^\"(.*)\".*/\1/; t; s/[[:space:]]*#.*//; s/[[:space:]]+$//")
    lower=$(printf %s "$value" | tr 'A-Z' 'a-z')
    case "$lower" in
        '') [ -n "$line" ] && kind=empty || kind=absent ;;
        test_token_waiting_for_real|ваш_*|сгенерируйте_*|changeme|change_me|change-me|todo|xxx) kind=placeholder ;;
        *) kind=set ;;
    esac
    say "env.$1" "$kind ${#value}"
}
for key in YCLIENTS_PARTNER_TOKEN YCLIENTS_APP_ID JWT_SECRET; do env_key $key; done
say env.mode "$(stat -c '%a %U' "$APP_DIR/.env" 2>&1)"

# --- the API, straight
( say http.health "$(curl -s --max-time 5 -w ' %{http_code}' $local_url/health)" ) &
( say http.health_check "$(curl -s --max-time 5 -w ' %{http_code}' $local_url/marketplace/health-check)" ) &
( say http.qr_without_token "$(curl -s --max-time 5 -o /dev/null -w '%{http_code}' -X POST $local_url/marketplace/api/qr)" ) &
( say socket.direct "$(curl -s --max-time 5 "$local_url$handshake")" ) &
( upgrade ) &

# --- the site, through nginx and TLS
( say site.redirect "$(through -o /dev/null -w '%{http_code} %{redirect_url}' "http://$DOMAIN/")" ) &
( say site.health_check "$(through -w ' %{http_code}' "$site_url/marketplace/health-check")" ) &
( say site.onboarding_bare "$(through -o /dev/null -w '%{http_code}' "$site_url/marketplace/onboarding")" ) &
( say site.onboarding "$(through -o /dev/null -w '%{http_code} %{content_type}' "$site_url/marketplace/onboarding?token=verification")" ) &
( say site.socket "$(through "$site_url$handshake")" ) &
( certificate=$(through -v -o /dev/null "$site_url/" 2>&1 | sed -n 's/^\*  expire date: //p')
  left=$(( ($(date -d "$certificate" +%s 2>/dev/null || echo 0) - $(date +%s)) / 86400 ))
  say tls.days "$left"
  pem=/etc/letsencrypt/live/$DOMAIN/fullchain.pem
  say tls.host "$(openssl x509 -in $pem -noout -checkhost "$DOMAIN" 2>&1)" ) &
( say nginx.test "$(nginx -t 2>&1 | tail -n 1)"
  say nginx.enabled "$(stat -c '%F' "/etc/nginx/sites-enabled/$SITE" 2>&1)" ) &

# --- pm2, without its list: that carries the environment of a shell
( for file in "$HOME/.pm2/pids/$API_APP"-*.pid; do
      pid=$(cat "$file" 2>/dev/null) && [ -d "/proc/$pid" ] || continue
      say pm2.pid "$pid"
      say pm2.age "$(ps -o etimes= -p "$pid" | tr -d ' ')"
      say pm2.listens "$(ss -Hltnp "sport = :$API_PORT" | grep -c "pid=$pid,")"
      say pm2.shadowed "$(tr '\0' '\n' < "/proc/$pid/environ" | grep -oE '^(YCLIENTS_PARTNER_TOKEN|YCLIENTS_APP_ID|JWT_SECRET)=' | tr -d '=')"
      newer=$(find "$APP_DIR/.env" "$APP_DIR/src" -type f -newerct "@$(( $(date +%s) - $(ps -o etimes= -p "$pid") ))" 2>/dev/null | head -n 1)
      say pm2.newer_file "$newer"
  done
  say pm2.at_boot "$(systemctl is-enabled pm2-root.service 2>&1)" ) &

# --- packages
for package in socket.io jsonwebtoken @whiskeysockets/baileys; do
    say "npm.$package" "$(sed -n 's/^  *"version": *"\(.*\)".*/\1/p' "$APP_DIR/node_modules/$package/package.json" 2>/dev/null | head -n 1)"
done
say node.version "$(node --version 2>&1)"

# --- the database
( columns="'integration_status', 'marketplace_user_id', 'whatsapp_connected', 'api_key', 'webhook_secret'"
  count="SELECT count(*) FROM information_schema.columns WHERE table_name = 'companies' AND column_name IN ($columns)"
  say database.columns "$(cd / && runuser -u postgres -- psql -XAtqd postgres -c "$count" 2>&1)" ) &

# --- the session pool: called, without its constructor (that makes a folder and a timer)
( say pool.methods "$(cd / && node -e '
    const { WhatsAppSessionPool: Pool } = require(process.argv[1]);
    const found = ["getQR", "getSession", "createSession", "getSessionStatus"].map((name) => {
      if (typeof Pool.prototype[name] !== "function") return `${name}:missing`;
      return `${name}:ok`;
    });
    const calls = (name, other) => new RegExp(`this\\.${other}\\(`).test(Pool.prototype[name] ?? "");
    if (calls("createSession", "getOrCreateSession") && calls("getOrCreateSession", "createSession")) found.push("createSession:recursive");
    const pool = Object.create(Pool.prototype, { sessions: { value: new Map() }, qrCodes: { value: new Map([["962302", "QR"]]) } });
    Promise.resolve().then(() => pool.getQR("962302")).then(
      (qr) => found.push(`getQR() ${qr === "QR" ? "returns" : "does not return"} the code`),
      (error) => found.push(`getQR() throws ${error.message}`),
    ).finally(() => { console.log("POOL " + found.join(" ")); process.exit(0); });
  ' "$APP_DIR/src/integrations/whatsapp/session-pool.js" 2>&1 | grep -E "^POOL|Error" | head -n 1)" ) &
wait
