const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));

/** pm2 with a clean environment: what is in it when an app is started stays in pm2's record of the app. */
async function pm2Command(app_dir, ...words) {
  const env = { PATH: process.env.PATH, HOME: process.env.HOME, PM2_HOME, LANG: 'C.UTF-8' };
  return run('pm2', words, { cwd: app_dir, env, timeout: 60_000 });
}

/** Does this very process hold the listening port? Another one's answer on it would prove nothing. */
function listens(pid, port) {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const sockets = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((table) =>
    (readOrNull(table) ?? '').toString().split('\n').map((line) => line.trim().split(/\s+/))
      .filter((words) => words[1]?.endsWith(`:${hex}`) && words[3] === '0A').map((words) => `socket:[${words[9]}]`),
  );
  try {
    return fs.readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try {
        return sockets.includes(fs.readlinkSync(`/proc/${pid}/fd/${fd}`));
      } catch {
        return false;
      }
    });
  } catch {
    return false;
  }
}

/**
 * Returns when the app is up: its port answers /health below 500, and the process stays the same. Fails at once when
 * `givenUp` says so: after `max_restarts` starts that ended within a second pm2 7.0 starts it no more, in 4 s at best.
 */
async function waitUntilStable(data, givenUp) {
  const { api_app, api_port, start_timeout, settle_time } = data;
  const begun = Date.now();
  let alive = begun; // when a process of the app was last seen
  let last = 'its port never opened';
  let since = null; // when the process now running first answered
  let pid = null;
  while (Date.now() - begun < (start_timeout + settle_time) * 1000) {
    const running = pm2Process(api_app);
    if (running?.id !== pid) {
      if (pid !== null && since !== null) last = 'it answered, then ended and was started again';
      since = null;
      pid = running?.id ?? null;
    }
    if (running && since === null && listens(running.pid, api_port)) {
      const health = await fetch(`http://127.0.0.1:${api_port}/health`, { signal: AbortSignal.timeout(5000) }).catch((error) => error);
      if (health.status < 500) {
        since = Date.now();
        await makeNginxTryAgain(data);
      } else last = `/health answers ${health.status ?? health.message}`;
    }
    if (since !== null && Date.now() - since >= settle_time * 1000) return;
    if (running) alive = Date.now();
    else if (Date.now() - alive > 1000) {
      if (await givenUp()) break;
      alive = Date.now();
    }
    if (since === null && Date.now() - begun > start_timeout * 1000) break;
    await pause(50);
  }
  throw new Failure(last);
}

/** The end of the app's error log, without the values of its .env. */
function lastLines(app_dir, log) {
  const lines = ((log && readOrNull(log)) ?? '').toString().trimEnd().split('\n').slice(-20);
  const values = Object.values(createRequire(`${app_dir}/`)('dotenv').parse(readOrNull(path.join(app_dir, '.env')) ?? ''));
  const secrets = values.filter((value) => value.length >= 6).sort((a, b) => b.length - a.length);
  return secrets.reduce((text, secret) => text.replaceAll(secret, '****'), lines.join('\n'));
}

async function restartApi(data) {
  const close = openWaitingRoom(data.waiting_room, data.api_port, data.start_timeout);
  try {
    return await restartAndWatch(data);
  } finally {
    await close();
  }
}

async function restartAndWatch(data) {
  const { app_dir, api_app, status, shadowed } = data;
  if (status === 'no daemon') {
    const unit = childProcess.spawnSync('systemctl', ['restart', 'pm2-root.service']);
    if (unit.status !== 0) await pm2Command(app_dir, 'resurrect');
  }
  const all = async () => {
    const listed = await pm2Command(app_dir, 'jlist');
    if (listed.status !== 0) throw new Failure(`pm2 does not answer: ${listed.stderr.trim().split('\n').pop()}`);
    return pm2Apps(listed.stdout.toString());
  };
  const list = async () => (await all()).find((each) => each.name === api_app);
  const isKnown = async () => {
    // A daemon with no app at all was started by a mere `pm2 ls`: saving it would lose the other apps at the next boot.
    if ((await all()).length === 0) await pm2Command(app_dir, 'resurrect');
    return Boolean(await list());
  };
  // a `pm2 jlist` that fails says nothing about the app; with `restart_delay` set pm2 never says `errored`
  const givenUp = () => list().then((app) => ['errored', 'stopped'].includes(app?.pm2_env.status), () => false);
  // Each command of pm2 takes half a second: two are spared where its daemon runs the app, or seems to.
  const seems = pm2Process(api_app) !== null && pm2DaemonRuns();
  let known = seems || (await isKnown());
  if (known && shadowed.length) await pm2Command(app_dir, 'delete', api_app);
  let fresh = !known || shadowed.length > 0;
  const print = fingerprint(apiFiles(data));
  if (fresh && !fs.existsSync(path.join(app_dir, 'ecosystem.config.js'))) {
    throw new Failure(`pm2 does not know ${api_app}, and ${app_dir}/ecosystem.config.js is not there to start it from`);
  }
  const begun = Date.now();
  const start = () => pm2Command(app_dir, ...(fresh ? ['start', 'ecosystem.config.js', '--only', api_app] : ['restart', api_app]));
  let done = await start();
  if (done.status !== 0) {
    // pm2 7.0 on a busy machine: "Process with pid … already exists", and the app is down. Or another daemon than that of the app.
    if (seems) known = await isKnown();
    fresh ||= !known;
    done = await start();
  }
  if (done.status !== 0) throw new Failure(`pm2 could not start ${api_app}: ${done.stderr.trim().split('\n').pop()}`);
  if (fresh && !(await list())) throw new Failure(`ecosystem.config.js has no app named ${api_app}`);
  await waitUntilStable(data, givenUp).catch(async (error) => {
    const app = await list().catch(() => undefined);
    const log = app?.pm2_env.pm_err_log_path;
    const lines = lastLines(app_dir, log); // before the files change: their values are what it hides
    const undone = undo('api');
    let after = '';
    if (undone.length) {
      await pm2Command(app_dir, 'restart', api_app);
      after = await waitUntilStable(data, givenUp).then(
        () => '\nwith these it runs as before',
        (again) => `\nit does not stay up with these either: ${again.message}`,
      );
    }
    const status = app?.pm2_env.status ?? 'unknown';
    throw new Failure(`${api_app} does not stay up (${status}): ${error.message}\nlast lines of ${log}:\n${lines}${putBack(undone)}${after}`);
  });
  if (fresh) await pm2Command(app_dir, 'save');
  noteStart('api', [pm2Process(api_app)], print);
  return { restart_seconds: (Date.now() - begun) / 1000 }; // for bin/bench
}
