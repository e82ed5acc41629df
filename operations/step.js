// What every step on the host is made of. A step completes or leaves the old state, also when the connection drops:
// it starts only with its whole input read, has no terminal, and cares for neither hang-up nor broken pipe.
const BACKUPS = '/var/backups/ai-admin-deploy';
const KEEP = 10; // deploys whose old files are kept
const TEMPORARY = '.ai-admin-deploy-new';

/** An expected failure: its message is for the operator, and the old state stands. */
class Failure extends Error {}

const STEP_LOCK = '/run/lock/ai-admin-deploy-step.lock';
const STEP_WAIT = 45; // seconds
const HELD_BY_ANOTHER = 9;

/**
 * flock(1), held by a child that ends with us: it cannot be left behind. Resolves to how to release it, or to null when
 * somebody else still holds it after `wait` seconds.
 */
function takeLock(file, wait) {
  const patience = wait > 0 ? ['--timeout', String(wait)] : ['--nonblock'];
  const words = [...patience, '--conflict-exit-code', String(HELD_BY_ANOTHER), file, 'sh', '-c', 'echo held; exec cat'];
  const child = childProcess.spawn('flock', words, { stdio: ['pipe', 'pipe', 'ignore'] });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status) => (status === HELD_BY_ANOTHER ? resolve(null) : reject(new Error(`flock ${file} ended with ${status}`))));
    child.stdout.once('data', () => resolve(() => child.stdin.end()));
  });
}

function step(work) {
  for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT', 'SIGPIPE']) process.on(signal, () => {});
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  process.umask(0o077);
  // One step at a time, whoever's: one may have outlived the connection of its deploy, and with that the deploy's own lock.
  const alone = async (data) => {
    const release = await takeLock(STEP_LOCK, STEP_WAIT);
    if (!release) throw new Failure('a step of an earlier deploy still runs on the host; run again in a minute');
    return work(data).finally(release);
  };
  return (data) =>
    alone(data).then(
      (result) => console.log(JSON.stringify(result ?? {})),
      (error) => {
        // Node's own words name code, call and path: "ENOSPC: no space left on device, mkdir '/opt/…'"
        console.error(error instanceof Failure || error.code ? error.message : `${error.name}: ${error.message}`);
        process.exitCode = 1;
      },
    );
}

const unpack = (packed) => zlib.gunzipSync(Buffer.from(packed, 'base64'));

function sync(fileOrFolder) {
  const descriptor = fs.openSync(fileOrFolder, 'r');
  fs.fsyncSync(descriptor);
  fs.closeSync(descriptor);
}

/** Whole or not at all, and on the disk when this returns. A new file gets `mode`. `last` runs when only the rename is left. */
function writeWhole(file, content, mode, last = () => {}) {
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}${TEMPORARY}`);
  let descriptor;
  try {
    fs.rmSync(temporary, { force: true }); // of a step that was killed
    descriptor = fs.openSync(temporary, 'wx', 0o600);
    if (fs.existsSync(file)) {
      // owner, group, mode and ACLs of the old file, set before there is content
      const like = childProcess.spawnSync('cp', [
        ...['--attributes-only', '--preserve=mode,ownership,xattr'],
        ...['--', file, temporary],
      ]);
      if (like.status !== 0) throw new Failure(`${file}: ${like.stderr.toString().trim()}`);
    } else {
      fs.fchmodSync(descriptor, mode);
    }
    for (let at = 0; at < content.length; ) at += fs.writeSync(descriptor, content, at, content.length - at, at);
    fs.fsyncSync(descriptor);
    last();
    fs.renameSync(temporary, file);
  } catch (error) {
    if (descriptor !== undefined) fs.rmSync(temporary, { force: true });
    throw new Failure(`${file} was not written, and the old one stands: ${error.message}`); // a full disk, a read-only one
  } finally {
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }
  sync(path.dirname(file));
}

/**
 * Keep what is at `file`, and return how `restore` brings it back: the path of a 0600 copy below BACKUPS/<deploy>, {link}
 * for a symlink, null for nothing. The manifest tells rollback.py; the newest KEEP deploys stay.
 */
function backUp(deploy, file) {
  const folder = path.join(BACKUPS, deploy);
  const manifest = path.join(folder, 'manifest.json');
  const known = JSON.parse(readOrNull(manifest)?.toString() ?? '{}');
  if (file in known) return known[file];
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  let kept = null;
  if (stat?.isSymbolicLink()) kept = { link: fs.readlinkSync(file) };
  else if (stat) {
    kept = path.join(folder, file);
    fs.mkdirSync(path.dirname(kept), { recursive: true, mode: 0o700 });
    writeWhole(kept, fs.readFileSync(file), 0o600);
  }
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeWhole(manifest, Buffer.from(JSON.stringify({ ...known, [file]: kept })), 0o600);
  const old = fs.readdirSync(BACKUPS).sort().slice(0, -KEEP);
  for (const name of old) fs.rmSync(path.join(BACKUPS, name), { recursive: true });
  return kept;
}

/** Note, before the change: these processes run what was there before it. isStale reads the note; a rollback the files. */
function note(service, processes, files) {
  const file = `${STATE}/${service}.json`;
  const ids = processes.map((each) => each.id);
  const old = JSON.parse(readOrNull(file)?.toString() ?? '{"processes": [], "files": {}}');
  const stillTrue = ids.length === 0 || ids.some((id) => old.processes.includes(id));
  fs.mkdirSync(STATE, { recursive: true, mode: 0o700 });
  const noted = stillTrue
    ? { processes: old.processes.length ? old.processes : ids, files: { ...files, ...old.files } }
    : { processes: ids, files };
  writeWhole(file, Buffer.from(JSON.stringify(noted)), 0o600);
}

function forgetNote(service) {
  fs.rmSync(`${STATE}/${service}.json`, { force: true });
}

/** The service runs what is on disk: these processes were started when the files had this fingerprint. */
function noteStart(service, processes, print) {
  fs.mkdirSync(STATE, { recursive: true, mode: 0o700 });
  const noted = { processes: processes.map((each) => each.id), fingerprint: print };
  writeWhole(`${STATE}/${service}.started.json`, Buffer.from(JSON.stringify(noted)), 0o600);
  forgetNote(service);
}

/**
 * Replace a file that `service` reads. `expected` is the SHA-256 that the plan saw (null: no file): where it is
 * another now, somebody else is at work, and nothing is written.
 */
function replaceFile({ deploy, service, processes, file, content, expected, mode }) {
  const target = fs.existsSync(file) ? fs.realpathSync(file) : file;
  const old = readOrNull(target);
  if ((old && sha256(old)) !== expected) throw new Failure(`${file} was changed by somebody else just now; run again`);
  const kept = backUp(deploy, target);
  writeWhole(target, content, mode, () => note(service, processes, { [target]: kept }));
  return { file: target, backup: kept };
}

/** Put a symlink where anything or nothing was, in one rename. A name with a dot first is not loaded by nginx's `sites-enabled/*`. */
function placeSymlink(at, target) {
  const temporary = path.join(path.dirname(at), `.${path.basename(at)}${TEMPORARY}`);
  fs.rmSync(temporary, { force: true });
  fs.symlinkSync(target, temporary);
  fs.renameSync(temporary, at);
  sync(path.dirname(at));
}

/** Put back what backUp kept. */
function restore(file, kept) {
  if (kept === null) fs.rmSync(file, { force: true });
  else if (typeof kept === 'string') writeWhole(file, fs.readFileSync(kept), 0o644);
  else placeSymlink(file, kept.link);
}

/** The files that `service` has not run yet become what they were. Returns their names. */
function undo(service) {
  const { files } = JSON.parse(readOrNull(`${STATE}/${service}.json`)?.toString() ?? '{"files": {}}');
  for (const [file, kept] of Object.entries(files)) restore(file, kept);
  forgetNote(service);
  return Object.keys(files);
}

/** For a message: what a rollback put back. */
const putBack = (files) => (files.length ? `; put back as they were: ${files.join(', ')}` : '');
