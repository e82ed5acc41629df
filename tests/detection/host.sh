# Functions for planting faults and undoing them. Each `plant` and `undo` follows this, on the rehearsal host.
set -e
app=/opt/ai-admin
routes=$app/src/api/routes/yclients-marketplace.js
pool=$app/src/integrations/whatsapp/session-pool.js
socket=$app/src/api/websocket/marketplace-socket.js
site=/etc/nginx/sites-available/ai-admin.app
enabled=/etc/nginx/sites-enabled/ai-admin.app
live=/etc/letsencrypt/live/ai-admin.app
pids=/root/.pm2/pids
dump=/root/.pm2/dump.pm2
unit=/etc/systemd/system/pm2-root.service
certbot=/etc/systemd/system/certbot.service
packages="socket.io jsonwebtoken @whiskeysockets/baileys"

kept=" "
keep() { # as it was before the first of several edits
    case $kept in *" $1 "*) return ;; esac
    kept="$kept$1 "
    mkdir -p "/root/kept$(dirname "$1")"
    cp -a "$1" "/root/kept$1"
}
back() { cp -a "/root/kept$1" "$1"; }
edit() { keep "$1"; sed -Ei "$2" "$1"; ! cmp -s "$1" "/root/kept$1"; } # an edit that changes nothing is an error
add() { keep "$1"; printf '\n%s\n' "$2" >> "$1"; }
fake() { printf '#!/bin/sh\n%s\n' "$2" > "/usr/local/bin/$1"; chmod +x "/usr/local/bin/$1"; } # found before the real one
within() { # so many seconds this command succeeds
    end=$(($(date +%s) + $1)); shift
    until "$@"; do [ "$(date +%s)" -lt $end ] || return 9; sleep 0.05; done
}
on() { within 120 curl -sf -m 10 -o /dev/null "localhost:$1/health"; }
pid() { cat $pids/ai-admin-api-*.pid 2>/dev/null; }
another() { now=$(pid) && [ "$now" != "$last" ] && kill -0 "$now" 2>/dev/null; } # process than $last
crash() { last=$(pid); kill -9 "$last"; within 60 another; } # and pm2 has started it again
restart() { # pm2 7.0 sometimes complains that the process it has just killed still exists, and does nothing
    pm2 restart ai-admin-api --kill-timeout 200 >/dev/null 2>&1 || pm2 restart ai-admin-api >/dev/null
    on "${1:-3000}"
}
anew() {
    cd $app; pm2 delete ai-admin-api >/dev/null; pm2 start ecosystem.config.js --only ai-admin-api >/dev/null; on 3000
    pm2 save >/dev/null
}
workers() { pgrep -f '^nginx: worker process$' || true; } # not those that are shutting down
renewed() { now=$(workers); [ "$now" ] && ! grep -qxF "$old" <<< "$now"; }
systemctl() { # which only signals nginx to reload: here the new workers have taken over when it returns
    old=$(workers)
    command systemctl "$@" && { [ "$*" != "reload nginx" ] || within 120 renewed; }
}
reload() { nginx -t -q; systemctl reload nginx; }
tls() { edit $site "/listen 443 ssl;/a $1"; reload; } # a directive for the TLS server
certificate() { # 65 days old, for a name and so many days more, where certbot would put it
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$2" \
        -not_before "$(date -u -d '-65 days' +%Y%m%d%H%M%SZ)" \
        -subj "/CN=$1" -addext "subjectAltName=DNS:$1" \
        -keyout "${3:-$live}/privkey.pem" -out "${3:-$live}/fullchain.pem" 2>/dev/null
}
signed() { # by an intermediate of a root in that folder; cert.pem and fullchain.pem as certbot has them
    for each in root inter leaf; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$each" -keyout "$2/$each.key" -out "$2/$each.csr"
    done 2>/dev/null
    echo basicConstraints=critical,CA:TRUE > "$2/ca.ext"
    echo "subjectAltName=DNS:$1" > "$2/leaf.ext"
    openssl x509 -req -in "$2/root.csr" -signkey "$2/root.key" -extfile "$2/ca.ext" -out "$2/root.pem" 2>/dev/null
    openssl x509 -req -in "$2/inter.csr" -CA "$2/root.pem" -CAkey "$2/root.key" -extfile "$2/ca.ext" -out "$2/inter.pem" 2>/dev/null
    openssl x509 -req -in "$2/leaf.csr" -CA "$2/inter.pem" -CAkey "$2/inter.key" -extfile "$2/leaf.ext" -days 90 -out $live/cert.pem 2>/dev/null
    cat $live/cert.pem "$2/inter.pem" > $live/fullchain.pem
    cp "$2/leaf.key" $live/privkey.pem
}
keep_certificate() { keep $live/privkey.pem; keep $live/fullchain.pem; }
back_certificate() { back $live/privkey.pem; back $live/fullchain.pem; reload; }
package() { echo "$app/node_modules/$1/package.json"; }
sql() { (cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d "${2:-postgres}" -c "$1"); }
redis_says() { REDISCLI_AUTH='r#dis-Пароль==' redis-cli "$@"; }
redis() { redis_says "$@" | grep -qx OK; }
save_redis() { # which must end so: ok or err
    redis_says bgsave >/dev/null
    within 60 saved "$1"
}
saved() { redis_says info persistence | grep -q "^rdb_last_bgsave_status:$1"; }
of_standby() { (cd / && runuser -u postgres -- /usr/lib/postgresql/*/bin/pg_ctl "$@" -s -w -D /var/tmp/standby); }
standby() { # of this very database, at port 5433
    (cd / && runuser -u postgres -- pg_basebackup -R -c fast -D /var/tmp/standby)
    own="-c config_file=$(echo /etc/postgresql/*/main/postgresql.conf) -c data_directory=/var/tmp/standby"
    of_standby start -l /dev/null -o "$own -c external_pid_file= -c port=5433"
}
