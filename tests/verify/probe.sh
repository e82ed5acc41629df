# Everything that verification reads on the host, in one run. It prints lines of `name<TAB>value` without any secret, and
# changes nothing. It comes on standard input, after the variables that target.py sets. Its parts run in parallel.
set -f # `say` joins the lines of an output, which is left unquoted for this; it must not be matched against file names
export LC_ALL=C.UTF-8
say() { name=$1; shift; printf '%s\t%s\n' "$name" "$*"; }
say clock $(date +%s)


# Whose pm2 runs the API: its daemon is above what holds the port; else it has the API's pid file, or has saved it.
set +f
daemons=$(grep -lzs '^PM2 v[^ ]*: God Daemon' /proc/[0-9]*/cmdline | cut -d/ -f3)
set -f
of() { tr '\0' '\n' < "/proc/$1/environ" | sed -n "s/^$2=//p"; } # a variable of a process
has() { ls "$1/pids" 2>/dev/null | grep -q "^$API_APP-[0-9]*\.pid$" || grep -qs "\"name\": *\"$API_APP\"" "$1/dump.pm2"; }
holder=$(ss -Hltnp "sport = :$API_PORT" 2>&1)
pid=$(echo "$holder" | sed -n 's/.*pid=\([0-9]*\),.*/\1/p' | head -n 1)
while [ "${pid:-1}" -gt 1 ]; do
    for each in $daemons; do [ "$each" != "$pid" ] || daemon=$pid; done
    pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
done
for each in $daemons; do # a container's has another root
    [ "/proc/$each/root" -ef / ] && [ -z "$daemon" ] && has "$(of "$each" PM2_HOME)" && daemon=$each
done
user=root
if [ -n "$daemon" ]; then
    user=$(stat -c %U "/proc/$daemon") PM2_HOME=$(of "$daemon" PM2_HOME) node=$(readlink "/proc/$daemon/exe")
    PATH="${node%/*}:$PATH" # an interactive shell alone may have it there
fi
export PM2_HOME="${PM2_HOME:-$HOME/.pm2}"
say pm2.daemon $daemon
say pm2.user $user $(getent passwd $user | cut -d: -f6)
for each in $daemons; do # asking pm2 takes half a second: only where there are several
    own=$(stat -c %U "/proc/$each")
    [ "$each" = "$daemon" ] || ! [ "/proc/$each/root" -ef / ] ||
        ! runuser -u "$own" -- env PM2_HOME="$(of "$each" PM2_HOME)" pm2 describe "$API_APP" >/dev/null 2>&1 || other=$own
done
say pm2.other $other

node -e "$POOL_JS" 2>&1 & # first: it takes longest
# Where nginx serves https: 127.0.0.1, unless it listens on other addresses only
export SITE_ADDRESS=$(ss -Hltn 'sport = :443' 2>/dev/null | awk '
    { sub(/:443$/, "", $4); gsub(/[][]|%.*/, "", $4); at[NR] = $4 == "::" ? "::1" : $4 }
    $4 ~ /^(\*|0\.0\.0\.0|127\.0\.0\.1)$/ { at[1] = "127.0.0.1"; exit }
    END { print at[1] ? at[1] : "127.0.0.1" }')
node -e "$PROBE_JS" 2>&1 &
( set -- $(systemctl is-enabled pm2-$user nginx 2>&1); say boot.pm2 $1; say boot.nginx $2 ) &
( say nginx.active $(systemctl is-active nginx) ) &
migration=$( (cat "$APP_DIR/migrations/$MIGRATION" 2>/dev/null || printf '%s' "$MIGRATION_COPY") | sed 's/--.*//')
say migration $migration
( say database $(cd / && $PSQL -XAtq -c "
      SELECT CASE WHEN to_regclass('companies') IS NULL THEN 'no table companies'
                  ELSE coalesce('without ' || string_agg(name, ', '), 'complete') END
      FROM unnest(string_to_array('$WANTED_COLUMNS', ' ')) AS name
      WHERE NOT EXISTS (SELECT FROM pg_attribute
                        WHERE attrelid = to_regclass('companies') AND attname = name AND NOT attisdropped)" 2>&1) ) &
( say database.has $(cd / && $PSQL -XAtq -v file="$migration" 2>&1 <<'SQL'
      WITH made AS (SELECT oid, relname FROM pg_class WHERE relkind IN ('r', 'p') AND pg_table_is_visible(oid)
                    AND relnamespace <> 'pg_catalog'::regnamespace AND strpos(lower(:'file'), relname) > 0)
      SELECT 'table:' || relname FROM made
      UNION ALL SELECT format('column:%s.%s:%s:%s', relname, attname, typcategory, typname)
      FROM made JOIN pg_attribute ON attrelid = made.oid JOIN pg_type ON pg_type.oid = atttypid
      WHERE attnum > 0 AND NOT attisdropped
      UNION ALL SELECT 'index:' || i.relname
      FROM made JOIN pg_index ON indrelid = made.oid JOIN pg_class i ON i.oid = indexrelid WHERE indisvalid
      UNION ALL SELECT 'trigger:' || tgname FROM made JOIN pg_trigger ON tgrelid = made.oid WHERE NOT tgisinternal
      UNION ALL SELECT 'owner:' || pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass('companies')
      UNION ALL SELECT format('denied:%s:%s', relname, rolname) FROM made, pg_roles
      WHERE rolcanlogin AND (
        NOT (has_table_privilege(rolname, made.oid, 'SELECT') AND has_table_privilege(rolname, made.oid, 'INSERT')
             AND has_table_privilege(rolname, made.oid, 'UPDATE') AND has_table_privilege(rolname, made.oid, 'DELETE'))
        OR EXISTS (SELECT FROM pg_depend JOIN pg_class s ON s.oid = objid WHERE refobjid = made.oid
                   AND CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(rolname, s.oid, 'USAGE') END))
SQL
) ) &
say node.version $(node --version 2>&1)
say dotenv.mode $(stat -L -c '%a' "$APP_DIR/.env" 2>&1)
say port.holder $holder
say boot.saved $(grep -c "\"name\": *\"$API_APP\"" "$PM2_HOME/dump.pm2" 2>&1)
written="$APP_DIR $APP_DIR/logs /var/log /var/lib/postgresql"
say disk.used $(df -P $written 2>/dev/null | awk 'NR > 1 { print $5 " " $6 }' | sort -u)
say disk.inodes $(df -Pi $written 2>/dev/null | awk 'NR > 1 { print $5 " " $6 }' | sort -u)
say host.addresses $(ip -o address 2>/dev/null | awk '{ sub("/.*", "", $4); print $4 }')
wait
