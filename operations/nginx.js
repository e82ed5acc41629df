const SITES = '/etc/nginx';

function nginxTest() {
  const tested = childProcess.spawnSync('nginx', ['-t']);
  if (tested.status === 0) return null;
  const lines = tested.stderr.toString().trim().split('\n');
  return (lines.find((line) => /\[(emerg|alert|crit)\]/.test(line)) ?? lines[0]).replace(/^nginx: /, '');
}

/** The site's text into sites-available and a symlink to it into sites-enabled; `nginx -t` decides whether they stay. */
async function writeSite({ deploy, nginx_site, content, expected, linked }) {
  const available = `${SITES}/sites-available/${nginx_site}`;
  const enabled = `${SITES}/sites-enabled/${nginx_site}`;
  const workers = nginxWorkers();
  note('nginx', workers, { [enabled]: backUp(deploy, enabled) });
  replaceFile({
    ...{ deploy, service: 'nginx', processes: workers, file: available, expected, mode: 0o644 },
    content: unpack(content),
  });
  if (!linked) placeSymlink(enabled, available);
  const complaint = nginxTest();
  if (complaint) {
    undo('nginx');
    throw new Failure(`nginx refuses the new site, so the old one was put back: ${complaint}`);
  }
}

/**
 * nginx 1.26 takes an upstream of two addresses, as `localhost` is, for dead for 10 s after both refused (its fail_timeout): the
 * site would be down so much longer than the API. New workers know nothing of that.
 */
async function makeNginxTryAgain(data) {
  const workers = nginxWorkers();
  const dump = childProcess.spawnSync('nginx', ['-T'], { maxBuffer: 1 << 26 });
  // what somebody has changed since is not for us to put into force here
  if (!workers.length || dump.status !== 0 || isStale('nginx', workers, nginxFiles(dump.stdout))) return;
  await reloadNginx(data).catch(() => {}); // the API's restart is not to fail for it
}

/** Make nginx run what is on disk, and wait until its workers are new: `systemctl reload` returns before they are. */
async function reloadNginx({ start_timeout }) {
  const complaint = nginxTest();
  if (complaint) throw new Failure(`nginx refuses its configuration, so it was not reloaded: ${complaint}`);
  const old = nginxWorkers().map((worker) => worker.id);
  const files = nginxFiles(childProcess.spawnSync('nginx', ['-T'], { maxBuffer: 1 << 26 }).stdout);
  const print = fingerprint(files);
  const done = childProcess.spawnSync('systemctl', [old.length ? 'reload' : 'start', 'nginx']);
  if (done.status !== 0) throw new Failure(`systemctl could not ${old.length ? 'reload' : 'start'} nginx: journalctl -u nginx`);
  const deadline = Date.now() + start_timeout * 1000;
  const fresh = () => nginxWorkers().some((worker) => !old.includes(worker.id));
  while (!fresh()) {
    if (Date.now() > deadline) {
      const undone = undo('nginx');
      const words = (readOrNull('/var/log/nginx/error.log') ?? '').toString().trim().split('\n').pop();
      throw new Failure(`nginx did not take its configuration${putBack(undone)}: ${words}`);
    }
    await new Promise((wake) => setTimeout(wake, 20));
  }
  noteStart('nginx', nginxWorkers(), print);
}
