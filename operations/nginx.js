const SITES = '/etc/nginx';

function nginxTest() {
  const tested = childProcess.spawnSync('nginx', ['-t']);
  if (tested.status === 0) return null;
  const lines = tested.stderr.toString().trim().split('\n');
  return (lines.find((line) => /\[(emerg|alert|crit)\]/.test(line)) ?? lines[0]).replace(/^nginx: /, '');
}

/** Put a symlink where anything or nothing was, in one rename. A name with a dot first is not loaded by `sites-enabled/*`. */
function placeSymlink(at, target) {
  const temporary = path.join(path.dirname(at), `.${path.basename(at)}${TEMPORARY}`);
  fs.rmSync(temporary, { force: true });
  fs.symlinkSync(target, temporary);
  fs.renameSync(temporary, at);
  sync(path.dirname(at));
}

/** The site's text into sites-available and a symlink to it into sites-enabled; `nginx -t` decides whether they stay. */
async function writeSite({ deploy, nginx_site, content, expected }) {
  const available = `${SITES}/sites-available/${nginx_site}`;
  const enabled = `${SITES}/sites-enabled/${nginx_site}`;
  const wasEnabled = fs.lstatSync(enabled, { throwIfNoEntry: false });
  const kept = wasEnabled?.isSymbolicLink() ? null : backUp(deploy, enabled);
  const oldTarget = wasEnabled?.isSymbolicLink() ? fs.readlinkSync(enabled) : null;
  const written = replaceFile({
    ...{ deploy, service: 'nginx', processes: nginxWorkers(), file: available, expected, mode: 0o644 },
    content: unpack(content),
  });
  if (oldTarget !== available) placeSymlink(enabled, available);
  const complaint = nginxTest();
  if (complaint) {
    if (oldTarget !== null) placeSymlink(enabled, oldTarget);
    else restore(enabled, kept);
    restore(available, written.backup);
    forgetNote('nginx');
    throw new Failure(`nginx refuses the new site, so the old one was put back: ${complaint}`);
  }
  return written;
}

/** Make nginx run what is on disk, and wait until its workers are new: `systemctl reload` returns before they are. */
async function reloadNginx({ start_timeout }) {
  const complaint = nginxTest();
  if (complaint) throw new Failure(`nginx refuses its configuration, so it was not reloaded: ${complaint}`);
  const old = nginxWorkers().map((worker) => worker.id);
  const done = childProcess.spawnSync('systemctl', [old.length ? 'reload' : 'start', 'nginx']);
  if (done.status !== 0) throw new Failure(`systemctl could not ${old.length ? 'reload' : 'start'} nginx: journalctl -u nginx`);
  const deadline = Date.now() + start_timeout * 1000;
  const fresh = () => nginxWorkers().some((worker) => !old.includes(worker.id));
  while (!fresh()) {
    if (Date.now() > deadline) throw new Failure('nginx kept its old workers: tail /var/log/nginx/error.log');
    await new Promise((wake) => setTimeout(wake, 20));
  }
  forgetNote('nginx');
}
