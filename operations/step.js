// What every step on the host is made of. A step completes or leaves the old state, also when the connection drops:
// it starts only with its whole input read, has no terminal, and cares for neither hang-up nor broken pipe.
const BACKUPS = '/var/backups/ai-admin-deploy';
const KEEP = 10; // deploys whose old files are kept
const TEMPORARY = '.ai-admin-deploy-new';

/** An expected failure: its message is for the operator, and the old state stands. */
class Failure extends Error {}

function step(work) {
  for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT', 'SIGPIPE']) process.on(signal, () => {});
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  process.umask(0o077);
  return (data) =>
    work(data).then(
      (result) => console.log(JSON.stringify(result ?? {})),
      (error) => {
        console.error(error instanceof Failure ? error.message : `${error.code ?? error.name}: ${error.message}`);
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

/** Whole or not at all, and on the disk when this returns. A new file gets `mode`. */
function writeWhole(file, content, mode) {
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}${TEMPORARY}`);
  fs.rmSync(temporary, { force: true }); // of a step that was killed
  const descriptor = fs.openSync(temporary, 'wx', 0o600);
  try {
    if (fs.existsSync(file)) {
      // owner, group, mode and ACLs of the old file, set before there is content
      const like = childProcess.spawnSync('cp', [
        ...['--attributes-only', '--no-dereference', '--preserve=mode,ownership,xattr'],
        ...['--', file, temporary],
      ]);
      if (like.status !== 0) throw new Failure(`${file}: ${like.stderr.toString().trim()}`);
    } else {
      fs.fchmodSync(descriptor, mode);
    }
    fs.writeSync(descriptor, content, 0, content.length, 0);
    fs.fsyncSync(descriptor);
    fs.renameSync(temporary, file);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  } finally {
    fs.closeSync(descriptor);
  }
  sync(path.dirname(file));
}

/** Keep the old file, 0600 below BACKUPS/<deploy>; the newest KEEP deploys stay. Returns its path, null where there is none. */
function backUp(deploy, file) {
  const content = readOrNull(file);
  if (content === null) return null;
  const kept = path.join(BACKUPS, deploy, file);
  if (!fs.existsSync(kept)) {
    fs.mkdirSync(path.dirname(kept), { recursive: true, mode: 0o700 });
    writeWhole(kept, content, 0o600);
  }
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

/**
 * Replace a file that `service` reads. `expected` is the SHA-256 that the plan saw (null: no file): where it is
 * another now, somebody else is at work, and nothing is written.
 */
function replaceFile({ deploy, service, processes, file, content, expected, mode, check }) {
  const target = fs.existsSync(file) ? fs.realpathSync(file) : file;
  const old = readOrNull(target);
  if ((old && sha256(old)) !== expected) throw new Failure(`${file} was changed by somebody else just now; run again`);
  check?.(content);
  const kept = backUp(deploy, target);
  note(service, processes, { [target]: kept });
  writeWhole(target, content, mode);
  return { file: target, backup: kept };
}

/** Put one file back as it was: from its backup, or away where there was none. */
function restore(file, kept) {
  if (kept === null) fs.rmSync(file, { force: true });
  else writeWhole(file, fs.readFileSync(kept), 0o600);
}
