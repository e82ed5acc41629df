const TRIES = 4;

/** Who stands in the way of the table: their backends, without the text of their queries, which may hold secrets. */
async function blockers(database) {
  const asked = await psql(
    database,
    `SELECT format('pid %s (%s, %s, %s, for %s s)', pid, usename, coalesce(nullif(application_name, ''), 'no name'), state,
       extract(epoch FROM now() - xact_start)::int)
     FROM pg_stat_activity JOIN pg_locks USING (pid)
     WHERE relation = to_regclass('companies') AND granted AND pid <> pg_backend_pid() GROUP BY 1;`,
  );
  return asked.stdout.toString().trim().split('\n').filter(Boolean).join(', ') || 'nobody any more';
}

/** Run the migration and enter it in the ledger, both or neither. `adopted`: it was run by hand; enter it only. */
async function migrate({ app_dir, database, migration, columns, sql, expected, adopted, lock_timeout, statement_timeout }) {
  const file = readOrNull(path.join(app_dir, 'migrations', migration));
  if (sql === null && (file && sha256(file)) !== expected) {
    throw new Failure(`migrations/${migration} was changed by somebody else just now; run again`);
  }
  const text = sql === null ? file : Buffer.from(sql);
  const own = /^\s*(BEGIN|COMMIT|ROLLBACK|START\s+TRANSACTION)\s*;/im.exec(text.toString());
  if (own && !adopted) throw new Failure(`migrations/${migration} holds its own ${own[1]}; take it out: we run it in one transaction`);
  const script = `
    BEGIN;
    SET LOCAL lock_timeout = '${lock_timeout}s';
    SET LOCAL statement_timeout = '${statement_timeout}s';
    CREATE SCHEMA IF NOT EXISTS ai_admin_deploy;
    CREATE TABLE IF NOT EXISTS ${LEDGER} (
      name text PRIMARY KEY, sha256 text NOT NULL, adopted boolean NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
    ${adopted ? '' : text.toString()}
    ;
    INSERT INTO ${LEDGER} (name, sha256, adopted) VALUES ('${migration}', '${sha256(text)}', ${adopted});
    COMMIT;
  `;
  for (let attempt = 1; ; attempt += 1) {
    const done = await psql(database, script, 3_600_000); // the database's own limits end it
    if (done.status === 0) return;
    const line = done.stderr.split('\n').find((each) => /ERROR|FATAL|could not/.test(each)) ?? done.stderr.trim();
    if (!/lock timeout/.test(line)) throw new Failure(`the migration failed, and the database is as it was: ${line}`);
    if (attempt === TRIES) {
      throw new Failure(
        `the migration waited ${TRIES} times ${lock_timeout} s for the table companies, and the database is as it was; ` +
          `in the way: ${await blockers(database)}. End it, or run again later`,
      );
    }
    await new Promise((wake) => setTimeout(wake, 1000 * 2 ** (attempt - 1))); // others get their turn: 1, 2, 4 s
  }
}
