// One deploy at a time per host, and a line about each in the audit log. This process lives as long as the deploy's
// connection: the lock is held by a child that ends when our end of its pipe does, so it cannot be left behind.
const LOCK = '/run/lock/ai-admin-deploy.lock';
const AUDIT = '/var/log/ai-admin-deploy.jsonl';
const AUDIT_SIZE = 1_000_000; // bytes; then it becomes .1, and .1 becomes .2
const ALIVE = 20_000; // ms

/** The key that this connection came with, as sshd told the journal: it knows it by the client's port. */
async function keyFingerprint() {
  const port = (process.env.SSH_CONNECTION ?? process.env.SSH_CLIENT ?? '').split(' ')[1];
  const found = await run('journalctl', ['-q', '-o', 'cat', '-n', '1', '-g', `Accepted publickey .* port ${port} `]);
  return /(SHA256:\S+)/.exec(found.stdout.toString())?.[1] ?? null;
}

function rotate(file) {
  if ((fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0) < AUDIT_SIZE) return;
  if (fs.existsSync(`${file}.1`)) fs.renameSync(`${file}.1`, `${file}.2`);
  fs.renameSync(file, `${file}.1`);
}

/** Take the lock, look, and stay until the connection ends; then write down what the client said, or that it said nothing. */
async function session(input) {
  for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT', 'SIGPIPE']) process.on(signal, () => {});
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  let last = '';
  setInterval(() => process.stdout.write('\n'), ALIVE); // a connection that is dead but not closed shows itself by this
  const ended = new Promise((resolve) => process.stdin.on('data', (text) => (last += text)).on('end', resolve));
  process.stdin.ref?.();

  const { who, bundle, deploy, lock_wait } = input.session;
  const holder = { who, from: (process.env.SSH_CONNECTION ?? '').split(' ')[0], since: new Date().toISOString() };
  if (!(await takeLock(LOCK, lock_wait))) {
    console.log(JSON.stringify({ locked: JSON.parse(readOrNull(LOCK)?.toString() || '{}') }));
    process.exit(0);
  }
  fs.writeFileSync(LOCK, JSON.stringify(holder));
  const quiet = await takeLock(STEP_LOCK, STEP_WAIT); // a step outlives its deploy's connection: look when it is done
  if (!quiet) {
    console.error('a step of an earlier deploy, whose connection was cut, still runs on the host; run again in a minute');
    process.exit(1);
  }
  quiet();
  await look(input);
  const key = await keyFingerprint(); // now, as later the client would wait for it
  await ended;
  const said = last.trim() ? JSON.parse(last) : { result: 'cut off', changed: [] };
  const files = Object.keys(JSON.parse(readOrNull(`${BACKUPS}/${deploy}/manifest.json`)?.toString() ?? '{}'));
  const entry = { at: holder.since, deploy, who, from: holder.from, key, bundle, ...said, files };
  rotate(AUDIT);
  fs.appendFileSync(AUDIT, `${JSON.stringify(entry)}\n`, { mode: 0o640 });
  process.exit(0);
}
