const LEDGER = 'ai_admin_deploy.migrations';

/**
 * psql 17: as the OS user postgres over the socket, or to a URL. The URL comes as a service file through a pipe: its
 * password is in no argument, environment or file. `-X` leaves the operator's .psqlrc out of it.
 */
function psql(database, script, timeout = 30_000) {
  const options = ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', '-'];
  const environment = { PATH: process.env.PATH, LC_ALL: 'C.UTF-8', PGCONNECT_TIMEOUT: '10' };
  if (database === null) {
    return run('runuser', ['-u', 'postgres', '--', 'psql', ...options, '-d', 'postgres'], { stdin: script, env: environment, timeout });
  }
  const service = ['[target]', ...Object.entries(database).map(([key, value]) => `${key}=${value}`), ''].join('\n');
  const env = { ...environment, PGSERVICEFILE: '/dev/fd/4', PGSERVICE: 'target' };
  // Node's own pipes are sockets, which cannot be opened by name: `cat` makes a pipe of it.
  const piped = 'exec 5<&0; cat <&3 | { exec 4<&0 0<&5; exec psql "$@"; }';
  return run('sh', ['-c', piped, 'sh', ...options], { stdin: script, env, fd3: service, timeout });
}

/** Only the database can tell whether the migration ran: no HTTP route does. */
async function migration({ app_dir, database, migration: name, columns }) {
  const file = readOrNull(path.join(app_dir, 'migrations', name));
  const list = columns.map((column) => `'${column}'`).join(', ');
  const answer = await psql(
    database,
    `SELECT to_regclass('companies') IS NOT NULL AS companies, to_regclass('${LEDGER}') IS NOT NULL AS ledger,
       (SELECT count(*) FROM information_schema.columns
        WHERE table_name = 'companies' AND column_name IN (${list})) AS columns \\gset
     \\if :ledger
       SELECT sha256 AS sha FROM ${LEDGER} WHERE name = '${name}' UNION ALL SELECT '' LIMIT 1 \\gset
     \\else
       \\set sha ''
     \\endif
     \\echo :companies :columns :sha
    `,
  );
  if (answer.status !== 0) return { error: answer.stderr.trim().split('\n')[0] };
  const [companies, count, sha] = answer.stdout.toString().trim().split(' ');
  return { companies: companies === 't', columns: Number(count), applied: sha || null, file: file && sha256(file) };
}
