/** The workers that serve, without those that only finish old connections after a reload. */
function nginxWorkers() {
  const master = readOrNull('/run/nginx.pid')?.toString().trim();
  if (!master) return [];
  const children = (readOrNull(`/proc/${master}/task/${master}/children`) ?? '').toString().trim();
  return children
    .split(' ')
    .filter((pid) => /^nginx: worker process\s*\0*$/.test((readOrNull(`/proc/${pid}/cmdline`) ?? '').toString().trim()))
    .map(processOf)
    .filter(Boolean);
}

/** Every file that `nginx -T` printed, and their folders: one file less is a change too. */
function nginxFiles(dump) {
  const loaded = [...dump.toString().matchAll(/^# configuration file (.+):$/gm)].map((match) => match[1]);
  return [...loaded, ...new Set(loaded.map((file) => path.dirname(file)))];
}

/**
 * The site's files and, by `nginx -T` (1.26: 20 ms), the configuration on disk with all that it includes. A worker that
 * crashed is replaced by one younger than the configuration that the master still holds: so the oldest worker counts.
 */
async function nginx({ nginx_site, domain }) {
  const dump = await run('nginx', ['-T']);
  if (dump.status !== 0) {
    const words = dump.stderr.split('\n').filter((line) => /\[(emerg|alert|crit)\]/.test(line));
    return { error: (words[0] ?? dump.stderr.trim()).replace(/^nginx: /, '') };
  }
  const describe = (file) => {
    const stat = fs.lstatSync(file, { throwIfNoEntry: false });
    if (!stat) return { type: 'absent', target: null, content: null };
    const content = readOrNull(file);
    if (!stat.isSymbolicLink()) return { type: 'file', target: null, content: content && pack(content) };
    return { type: 'symlink', target: fs.readlinkSync(file), content: content && pack(content) };
  };
  const workers = nginxWorkers();
  return {
    dump: pack(dump.stdout),
    available: describe(`/etc/nginx/sites-available/${nginx_site}`),
    enabled: describe(`/etc/nginx/sites-enabled/${nginx_site}`),
    certificate: fs.existsSync(`/etc/letsencrypt/live/${domain}/fullchain.pem`),
    running: workers.length > 0,
    stale: workers.length > 0 && isStale('nginx', workers, nginxFiles(dump.stdout)),
  };
}
