// The session pool's methods, called on an object made without the constructor, which would create a folder and a timer.
// What could start a session (createSession, getOrCreateSession) is not called: its source is read.
// And each package is loaded, as the application does: in this process, for the session pool has loaded baileys by then.
const { spawnSync } = require('child_process');
const fs = require('fs');
const { createRequire } = require('module');

const { folder, sessionPool, poolClass, packages } = JSON.parse(process.argv[1]);
const write = process.stdout.write.bind(process.stdout);
process.stdout.write = () => true; // the application logs there; who writes to its descriptor comes before our mark
const line = (error) => String(error?.message ?? error).split('\n')[0];
const found = { loads: '', methods: [], recursive: false, calls: {}, packages: {} };
const app = createRequire(`${folder}/`);
const ID = '962302';
const session = { id: ID };

/** Also where what is loaded ends this process, as an application may without its database. */
process.on('exit', (code) => {
  found.loads ||= `it ends the process that loads it (exit code ${code})`;
  write(`\x1e${JSON.stringify(found)}\n`);
});

/** What it reads while it is loaded: the application's folder, and .env. */
function surround() {
  process.chdir(folder);
  Object.assign(process.env, { ...app('dotenv').parse(fs.readFileSync('.env')), ...process.env });
}

async function main() {
  try {
    surround();
  } catch {} // without dotenv or .env it may load all the same
  const { [poolClass]: Pool } = require(`${folder}/${sessionPool}`);
  const source = (name) => String(Pool.prototype[name] ?? '');
  for (let each = Pool.prototype; each; each = Object.getPrototypeOf(each)) {
    found.methods.push(...Object.getOwnPropertyNames(each).filter((name) => typeof Pool.prototype[name] === 'function'));
  }
  const calls = (name, other) => source(name).includes(`this.${other}(`);
  found.recursive = calls('createSession', 'getOrCreateSession') && calls('getOrCreateSession', 'createSession');
  const pool = Object.create(Pool.prototype, {
    sessions: { value: new Map([[ID, session]]) },
    qrCodes: { value: new Map([[ID, 'QR']]) },
  });
  const expected = {
    getQR: (result) => result === 'QR',
    getSession: (result) => result === session,
    getSessionStatus: (result) => typeof result === 'object' && result !== null && 'connected' in result,
  };
  for (const [name, right] of Object.entries(expected)) {
    try {
      found.calls[name] = right(await pool[name](ID)) ? 'right' : 'wrong';
    } catch (error) {
      found.calls[name] = `throws ${line(error)}`;
    }
  }
}

/** What only `import` loads: from the application's folder, as a bare name cannot be here. */
function imported(name) {
  const program = 'import(process.argv[1]).then(() => process.exit(0))';
  const options = { cwd: folder, encoding: 'utf8', timeout: 20_000 };
  const { status, stderr } = spawnSync(process.execPath, ['-e', program, name], options);
  return status === 0 ? 'yes' : stderr.split('\n').find((line) => line.includes('Error')) ?? 'import fails';
}

function loadPackages() {
  const onlyImport = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE', 'ERR_PACKAGE_PATH_NOT_EXPORTED'];
  for (const name of packages) {
    try {
      app(name);
      found.packages[name] = 'yes';
    } catch (error) {
      found.packages[name] = onlyImport.includes(error?.code) ? imported(name) : line(error);
    }
  }
}

main()
  .catch((error) => (found.loads = line(error)))
  .then(loadPackages)
  .finally(() => { found.loads ||= 'yes'; process.exit(0); });
