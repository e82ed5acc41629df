// Installs what is missing and nothing else. `npm install` in the application's folder would also remove what
// package.json does not list and move other packages to what the lock says; both have taken the app down. So each package
// is made in a folder of its own, with all it needs inside it, and enters node_modules in one rename.

/**
 * A lock for the one package `name`, cut out of the application's own: the same versions and checksums, each
 * dependency nested below who needs it. Null when the application's lock does not list the package.
 */
function lockFor(lock, name) {
  const packages = {};
  const nearest = (dependency, from) => {
    for (let at = from; ; at = at.slice(0, Math.max(at.lastIndexOf('/node_modules/'), 0))) {
      const key = `${at ? `${at}/` : ''}node_modules/${dependency}`;
      if (lock.packages[key]) return key;
      if (!at) return null;
    }
  };
  const add = (key, place, above) => {
    const entry = lock.packages[key];
    const { dev, peer, devOptional, ...kept } = entry;
    packages[place] = kept;
    const needs = Object.keys({ ...entry.dependencies, ...entry.optionalDependencies });
    const here = needs.map((each) => [each, nearest(each, key)]).filter(([each, found]) => found && above.get(each) !== found);
    const visible = new Map([...above, ...here]);
    for (const [dependency, found] of here) add(found, `${place}/node_modules/${dependency}`, visible);
  };
  const top = `node_modules/${name}`;
  if (!lock?.packages?.[top]) return null;
  add(top, top, new Map([[name, top]]));
  const { version } = lock.packages[top];
  const root = { name: 'staging', dependencies: { [name]: version } };
  return { root, lock: { name: 'staging', lockfileVersion: 3, requires: true, packages: { '': root, ...packages } } };
}

/** Every package of the tree by its place, with its version. */
function versions(folder, prefix = '') {
  const found = {};
  for (const entry of fs.existsSync(folder) ? fs.readdirSync(folder, { withFileTypes: true }) : []) {
    if (entry.name.startsWith('.') || !(entry.isDirectory() || entry.isSymbolicLink())) continue;
    const at = path.join(folder, entry.name);
    if (entry.name.startsWith('@')) Object.assign(found, versions(at, `${prefix}${entry.name}/`));
    else {
      const own = readOrNull(path.join(at, 'package.json'));
      if (own) found[prefix + entry.name] = JSON.parse(own).version;
    }
  }
  return found;
}

async function installPackages({ app_dir, api_app, deploy, install }) {
  const modules = path.join(app_dir, 'node_modules');
  const staging = path.join(app_dir, '.ai-admin-deploy-npm');
  const lock = JSON.parse(readOrNull(path.join(app_dir, 'package-lock.json')) ?? 'null');
  const before = versions(modules);
  fs.rmSync(staging, { recursive: true, force: true }); // of a run that was killed
  fs.mkdirSync(staging); // not recursive: that calls a read-only file system ENOENT (Node 20)
  try {
    for (const { name, range, useLock } of install) {
      const own = path.join(staging, name.replace('/', '+'));
      fs.mkdirSync(own, { recursive: true });
      const npmrc = path.join(app_dir, '.npmrc');
      if (fs.existsSync(npmrc)) fs.copyFileSync(npmrc, path.join(own, '.npmrc'));
      const cut = useLock ? lockFor(lock, name) : null;
      const manifest = cut?.root ?? { name: 'staging', dependencies: { [name]: range } };
      fs.writeFileSync(path.join(own, 'package.json'), JSON.stringify(manifest));
      if (cut) fs.writeFileSync(path.join(own, 'package-lock.json'), JSON.stringify(cut.lock));
      const quiet = ['--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error'];
      const verb = cut ? ['ci'] : ['install', '--install-strategy=nested'];
      const done = await run('npm', [...verb, '--omit=dev', '--legacy-peer-deps', ...quiet], { cwd: own, timeout: 600_000 });
      if (done.status !== 0) {
        const words = done.stderr.split('\n').filter((line) => /npm (ERR!|error) /.test(line)).map((line) => line.replace(/npm (ERR!|error) /, ''));
        throw new Failure(`npm could not install ${name}@${range}: ${words.slice(0, 3).join('; ') || done.stderr.trim()}`);
      }
    }
    const running = pm2Process(api_app);
    note('api', running ? [running] : [], {});
    for (const { name } of install) {
      const place = path.join(modules, name);
      const aside = path.join(staging, 'replaced');
      fs.mkdirSync(path.dirname(place), { recursive: true, mode: 0o755 });
      const replaces = fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined;
      if (replaces) fs.renameSync(place, aside);
      try {
        fs.renameSync(path.join(staging, name.replace('/', '+'), 'node_modules', name), place);
      } catch (error) {
        if (replaces) fs.renameSync(aside, place);
        throw error;
      }
      fs.rmSync(aside, { recursive: true, force: true });
    }
  } finally {
    fs.rmSync(staging, { recursive: true, force: true });
  }
  const after = versions(modules);
  const names = install.map(({ name }) => name);
  const moved = Object.keys(before).filter((name) => before[name] !== after[name] && !names.includes(name));
  if (moved.length) throw new Failure(`packages that are not ours changed meanwhile: ${moved.join(', ')}; was npm run by somebody else?`);
  return Object.fromEntries(names.map((name) => [name, after[name]]));
}
