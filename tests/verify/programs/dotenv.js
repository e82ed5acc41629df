// The secrets in .env, read by the application's own parser: their kind and length, never their value.
const fs = require('fs');
const { createHmac } = require('crypto');
const path = require('path');
const { createRequire } = require('module');

const { folder, keys, nonce, secret, publicDefaults, malformed, ...rules } = JSON.parse(process.argv[1]);
const placeholder = new RegExp(rules.placeholder, 'iu');
const app = createRequire(`${folder}/`);
const text = (file) => fs.readFileSync(file, 'utf8');
const content = text(`${folder}/.env`);
const values = app('dotenv').parse(content);

const sources = () => (fs.existsSync(`${folder}/src`) ? fs.readdirSync(`${folder}/src`, { withFileTypes: true, recursive: true }) : [])
  .filter((each) => each.isFile() && /\.[cm]?[jt]s$/.test(each.name))
  .map((each) => path.join(each.parentPath ?? each.path, each.name));
// a secret that stands in the source is a default that everybody can read
const isPublic = (value) => publicDefaults.includes(value) || sources().some((file) => text(file).includes(value));

const read = (key) => {
  const value = values[key]?.trim();
  const glued = new RegExp(`^[^#\\n]*=[^#\\n]*[^#\\s]${key}=`, 'm').test(content); // and not OLD_KEY=
  const kind =
    value === undefined ? (glued ? 'glued' : 'absent')
    : value === '' ? 'empty'
    : placeholder.test(value) ? 'placeholder'
    : key === secret && isPublic(value) ? 'public'
    : 'set';
  const against = Object.entries(malformed[key] ?? {}).find(([pattern]) => new RegExp(pattern, 'iu').test(value ?? ''));
  const digest = createHmac('sha256', nonce).update(values[key] ?? '').digest('hex'); // by a nonce of this run alone
  const spaced = value === values[key] ? '' : 'has whitespace around it';
  return { kind, length: value?.length ?? 0, malformed: against?.[1] ?? spaced, digest };
};
const url = [values.DATABASE_URL, values.POSTGRES_URL].find((each) => URL.canParse(each ?? ''));
const role = values.POSTGRES_USER || values.DB_USER || values.PGUSER || (url ? decodeURIComponent(new URL(url).username) : '');
console.log(JSON.stringify({ keys: Object.fromEntries(keys.map((key) => [key, read(key)])), role }));
