const PM2_HOME = process.env.PM2_HOME || path.join(process.env.HOME, '.pm2');

/** The application's running process, by pm2's pid file (pm2 7.0: pids/<name>-<pm_id>.pid) and its environment. */
function pm2Process(app) {
  const folder = path.join(PM2_HOME, 'pids');
  const names = fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  const pids = names
    .filter((name) => name.startsWith(`${app}-`) && /^\d+\.pid$/.test(name.slice(app.length + 1)))
    .map((name) => (readOrNull(path.join(folder, name)) ?? '').toString().trim());
  for (const pid of pids) {
    const environment = readOrNull(`/proc/${pid}/environ`)?.toString().split('\0') ?? [];
    if (environment.includes(`name=${app}`)) {
      return { ...processOf(pid), variables: environment.map((line) => line.split('=', 1)[0]) };
    }
  }
  return null;
}

/** By its pid file, which may be an old one: the process must at least be a node. */
function pm2DaemonRuns() {
  const daemon = readOrNull(path.join(PM2_HOME, 'pm2.pid'))?.toString().trim();
  try {
    return Boolean(daemon) && path.basename(fs.readlinkSync(`/proc/${daemon}/exe`)).startsWith('node');
  } catch {
    return false;
  }
}

/** The apps in what `pm2 jlist` printed; what the client says of a new daemon comes before them. */
const pm2Apps = (printed) => JSON.parse(printed.slice(printed.lastIndexOf('\n[') + 1));

/** Every file that the process read at its start and that we or others change: .env, packages, source. */
function apiFiles({ app_dir, packages }) {
  const under = (folder) =>
    fs.existsSync(folder)
      ? fs.readdirSync(folder, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile())
          .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
      : [];
  return [
    path.join(app_dir, '.env'),
    path.join(app_dir, 'node_modules/.package-lock.json'),
    ...Object.keys(packages).map((name) => path.join(app_dir, 'node_modules', name, 'package.json')),
    ...under(path.join(app_dir, 'src')),
  ];
}

/**
 * pm2's own commands take 0.4 s and start a daemon where there is none, so the running process is found in /proc. Only
 * when it does not run is pm2 asked why. `shadowed`: keys in the process's first environment, which win over .env (dotenv 17).
 */
async function pm2(input) {
  const { api_app, keys } = input;
  const running = pm2Process(api_app);
  if (running) {
    return {
      status: 'online',
      stale: isStale('api', [running], apiFiles(input)),
      shadowed: keys.filter((key) => running.variables.includes(key)),
    };
  }
  if (!pm2DaemonRuns()) return { status: 'no daemon', stale: true, shadowed: [] };
  const list = await run('pm2', ['jlist']);
  const app = pm2Apps(list.stdout.toString()).find((each) => each.name === api_app);
  return { status: app ? app.pm2_env.status : 'unknown', stale: true, shadowed: [] };
}
