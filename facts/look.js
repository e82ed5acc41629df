// One look at the host: every noun's reading, side by side, in one process. Reads only.
// Printed as one line of JSON on standard output; no secret's value is ever in it.
const fs = require('fs');
const path = require('path');
const zlib = require('zlib');
const crypto = require('crypto');
const childProcess = require('child_process');
const { createRequire } = require('module');

const STATE = '/var/lib/ai-admin-deploy';

const pack = (buffer) => zlib.gzipSync(buffer).toString('base64');
const sha256 = (buffer) => crypto.createHash('sha256').update(buffer).digest('hex');

/** The file's bytes, or null when there is none (ESRCH: of a process that ended meanwhile). Any other error is thrown. */
function readOrNull(file) {
  try {
    return fs.readFileSync(file);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ESRCH'].includes(error.code)) return null;
    throw error;
  }
}

/** {status, stdout, stderr}; never rejects. `options.stdin` is written to it, `options.fd3` to its descriptor 3. */
function run(command, args, options = {}) {
  return new Promise((resolve) => {
    const stdio = ['pipe', 'pipe', 'pipe', ...(options.fd3 === undefined ? [] : ['pipe'])];
    const child = childProcess.spawn(command, args, { stdio, cwd: '/', timeout: 30_000, ...options });
    const out = { stdout: [], stderr: [] };
    for (const name of ['stdout', 'stderr']) child[name].on('data', (chunk) => out[name].push(chunk));
    child.on('error', (error) => resolve({ status: -1, stdout: Buffer.alloc(0), stderr: error.message }));
    child.on('close', (status) =>
      resolve({ status, stdout: Buffer.concat(out.stdout), stderr: Buffer.concat(out.stderr).toString() }),
    );
    child.stdin.on('error', () => {}).end(options.stdin ?? '');
    child.stdio[3]?.on('error', () => {}).end(options.fd3);
  });
}

/**
 * A process that cannot be mistaken for a later one with the same pid: boot, pid and start in clock ticks.
 * `started` is on the wall clock, in ms, good to 20 ms (Linux counts 100 ticks a second).
 */
function processOf(pid) {
  try {
    const ticks = Number(fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').pop().split(' ')[19]);
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    const uptime = Number(fs.readFileSync('/proc/uptime', 'latin1').split(' ')[0]);
    return { pid: Number(pid), id: `${boot}/${pid}/${ticks}`, started: Date.now() - (uptime * 1000 - ticks * 10) };
  } catch {
    return null; // it ended meanwhile
  }
}

/** Tells every change of the files, by anyone, whatever the clock says: each one's inode and its last change. */
const fingerprint = (files) =>
  sha256(
    files
      .map((file) => [fs.lstatSync(file, { throwIfNoEntry: false }), fs.statSync(file, { throwIfNoEntry: false })])
      .map((pair, at) => [files[at], ...pair.map((stat) => stat && [stat.ino, stat.size, stat.ctimeMs])])
      .map((each) => JSON.stringify(each))
      .sort()
      .join(),
  );

/**
 * Is what runs older than what is on disk? Three witnesses, the best first. Our note, made before each change of ours, of
 * the processes that ran then. For processes that we started: the files' fingerprint from before their start. For those
 * that somebody else started: the files' times against theirs, which a clock that was set meanwhile can make wrong.
 */
function isStale(service, processes, files) {
  const ours = (note) => processes.some((process) => note.processes.includes(process.id));
  const changed = readOrNull(`${STATE}/${service}.json`);
  if (changed && ours(JSON.parse(changed))) return true;
  const started = readOrNull(`${STATE}/${service}.started.json`);
  if (started && ours(JSON.parse(started))) return JSON.parse(started).fingerprint !== fingerprint(files);
  const since = Math.min(...processes.map((process) => process.started));
  const times = (file) => [fs.lstatSync(file, { throwIfNoEntry: false }), fs.statSync(file, { throwIfNoEntry: false })];
  return files.flatMap(times).some((stat) => stat && stat.ctimeMs > since);
}

async function look(input) {
  const missing = ['node', 'npm', 'nginx', 'pm2', 'psql'].filter(
    (tool) => !process.env.PATH.split(':').some((folder) => fs.existsSync(path.join(folder, tool))),
  );
  const found = { missing, app: fs.existsSync(path.join(input.app_dir, 'package.json')) };
  if (found.missing.length === 0 && found.app) {
    const nouns = { migration, nginx, pm2, dotenv, npm, source, backups }; // those that wait for a process go first
    const readings = Object.entries(nouns).map(async ([name, read]) => {
      try {
        return [name, await read(input)];
      } catch (error) {
        return [name, { error: error.message }];
      }
    });
    Object.assign(found, Object.fromEntries(await Promise.all(readings)));
  }
  console.log(JSON.stringify(found));
}
