/** Run the migration and enter it in the ledger, both or neither. `adopted`: it was run by hand; enter it only. */
async function migrate({ app_dir, database, migration, columns, sql, expected, adopted }) {
  const file = readOrNull(path.join(app_dir, 'migrations', migration));
  if (sql === null && (file && sha256(file)) !== expected) {
    throw new Failure(`migrations/${migration} was changed by somebody else just now; run again`);
  }
  const text = sql === null ? file : Buffer.from(sql);
  const own = /^\s*(BEGIN|COMMIT|ROLLBACK|START\s+TRANSACTION)\s*;/im.exec(text.toString());
  if (own && !adopted) throw new Failure(`migrations/${migration} holds its own ${own[1]}; take it out: we run it in one transaction`);
  const script = `
    BEGIN;
    CREATE SCHEMA IF NOT EXISTS ai_admin_deploy;
    CREATE TABLE IF NOT EXISTS ${LEDGER} (
      name text PRIMARY KEY, sha256 text NOT NULL, adopted boolean NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
    ${adopted ? '' : text.toString()}
    ;
    INSERT INTO ${LEDGER} (name, sha256, adopted) VALUES ('${migration}', '${sha256(text)}', ${adopted});
    COMMIT;
  `;
  const done = await psql(database, script);
  if (done.status !== 0) {
    const words = done.stderr.split('\n').filter((line) => /ERROR|FATAL|could not/.test(line));
    throw new Failure(`the migration failed, and the database is as it was: ${words[0] ?? done.stderr.trim()}`);
  }
}
