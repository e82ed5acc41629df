/**
 * What the application reads from its .env, by the application's own dotenv (17.4 seen: the last duplicate wins, an
 * unquoted # cuts the value). Of each key: how often it is there, what kind of value, and whether that is the wanted one.
 */
async function dotenv({ app_dir, wanted, keys, placeholders, min_jwt_secret }) {
  const content = readOrNull(path.join(app_dir, '.env'));
  const text = (content ?? '').toString();
  const values = createRequire(`${app_dir}/`)('dotenv').parse(text);
  const kindOf = (key, value) => {
    if (value === undefined) return 'absent';
    if (value.trim() === '') return 'empty';
    if (placeholders.includes(value.trim().toLowerCase())) return 'placeholder';
    return key === 'JWT_SECRET' && value.length < min_jwt_secret ? 'weak' : 'set';
  };
  return {
    sha256: content && sha256(content),
    keys: Object.fromEntries(
      keys.map((key) => [
        key,
        {
          kind: kindOf(key, values[key]),
          equal: key in wanted && values[key] === wanted[key],
          times: text.split(/\r\n?|\n/).filter((line) => new RegExp(`^\\s*(export\\s+)?${key}(\\s*=|:\\s)`).test(line)).length,
        },
      ]),
    ),
  };
}
