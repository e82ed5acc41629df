// The session pool's methods, called on an object made without the constructor, which would create a folder and a timer.
// What could start a session (createSession, getOrCreateSession) is not called: its source is read.
// And each package is loaded, as the application does: in this process, for the session pool has loaded baileys by then.
const { spawnSync } = require('child_process');
const { createRequire } = require('module');

const { APP_DIR } = process.env;
const { sessionPool, poolClass, methods, packages } = JSON.parse(process.env.RULES); // rules.py
const print = console.log;
console.log = () => {}; // the application logs to standard output
const say = (name, ...values) => print(`${name}\t${values.join(' ').replace(/\s+/g, ' ').slice(0, 300)}`);
const ID = '962302';
const session = { id: ID };

async function main() {
  const { [poolClass]: Pool } = require(`${APP_DIR}/${sessionPool}`);
  const source = (name) => String(Pool.prototype[name] ?? '');
  for (const name of methods) {
    say(`pool.${name}`, typeof Pool.prototype[name] === 'function' ? 'there' : 'missing');
  }
  const all = new Set();
  for (let each = Pool.prototype; each; each = Object.getPrototypeOf(each)) {
    for (const name of Object.getOwnPropertyNames(each)) all.add(name);
  }
  print(`pool.methods\t${[...all].join(' ')}`);
  const calls = (name, other) => source(name).includes(`this.${other}(`);
  const recursive = calls('createSession', 'getOrCreateSession') && calls('getOrCreateSession', 'createSession');
  say('pool.recursion', recursive ? 'endless' : 'none');
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
      say(`pool.${name}()`, right(await pool[name](ID)) ? 'right' : 'wrong');
    } catch (error) {
      say(`pool.${name}()`, 'throws', error.message);
    }
  }
  say('pool.loads', 'yes');
}

/** What only `import` loads: from the application's folder, as a bare name cannot be here. */
function imported(name) {
  const program = 'import(process.argv[1]).then(() => process.exit(0))';
  const options = { cwd: APP_DIR, encoding: 'utf8', timeout: 20_000 };
  const { status, stderr } = spawnSync(process.execPath, ['-e', program, name], options);
  return status === 0 ? 'yes' : stderr.split('\n').find((line) => line.includes('Error')) ?? 'import fails';
}

function loadPackages() {
  const onlyImport = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE', 'ERR_PACKAGE_PATH_NOT_EXPORTED'];
  const app = createRequire(`${APP_DIR}/`);
  for (const name of packages) {
    try {
      app(name);
      say(`npm.${name}.loads`, 'yes');
    } catch (error) {
      const cause = onlyImport.includes(error?.code) ? imported(name) : String(error?.message ?? error).split('\n')[0];
      say(`npm.${name}.loads`, cause);
    }
  }
}

main()
  .catch((error) => say('pool.loads', 'no:', error.message.split('\n')[0]))
  .then(loadPackages)
  .finally(() => process.exit(0));
