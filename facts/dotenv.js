// .env as the application reads it, by the application's own dotenv (17.4 seen).

// dotenv's own pattern (lib/main.js, LINE) with one group more: 1 the key, 2 separator and value, 3 the value. So we
// find what it finds: quoted values may span lines, a quote that never closes is plain text, the last duplicate wins.
const ASSIGNMENT =
  /(?:^|^)\s*(?:export\s+)?([\w.-]+)((?:\s*=\s*?|:\s+?)(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?)\s*(?:#.*)?(?:$|$)/dgm;

/** The text as dotenv takes it, with LF for CR and CRLF, and of each UTF-16 unit of it the byte where it starts. */
function dotenvText(bytes) {
  const piece = /\r\n?|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|[^]/g; // UTF-8 by its bytes
  const starts = [];
  let text = '';
  for (const { 0: raw, index } of bytes.toString('latin1').matchAll(piece)) {
    const units = raw.startsWith('\r') ? '\n' : Buffer.from(raw, 'latin1').toString();
    for (let i = 0; i < units.length; i += 1) starts.push(index);
    text += units;
  }
  return { text, starts: [...starts, bytes.length] };
}

/** [{key, start, end, from, to}] in order: from the key to the end of the value; `from` and `to` as dotenv matches it. */
function dotenvAssignments(text) {
  return [...text.matchAll(ASSIGNMENT)].map((match) => {
    const start = match.indices[1][0];
    const length = text.slice(start, match.indices[2][1]).trimEnd().length;
    return { key: match[1], start, end: start + length, from: match.index, to: match.index + match[0].length };
  });
}

/** Of each key: how often it is there, what kind of value it has, and whether that is the wanted one. */
async function dotenv({ app_dir, wanted, keys, placeholders, min_jwt_secret, public_defaults }) {
  const content = readOrNull(path.join(app_dir, '.env'));
  const { text } = dotenvText(content ?? Buffer.alloc(0));
  const values = createRequire(`${app_dir}/`)('dotenv').parse(text);
  const found = dotenvAssignments(text);
  const kindOf = (key, value) => {
    if (value === undefined) return 'absent';
    if (value.trim() === '') return 'empty';
    if (placeholders.includes(value.trim().toLowerCase())) return 'placeholder';
    const weak = value.length < min_jwt_secret || public_defaults.includes(value);
    return key === 'JWT_SECRET' && weak ? 'weak' : 'set';
  };
  return {
    sha256: content && sha256(content),
    keys: Object.fromEntries(
      keys.map((key) => [
        key,
        {
          kind: kindOf(key, values[key]),
          equal: key in wanted && values[key] === wanted[key],
          times: found.filter((each) => each.key === key).length,
        },
      ]),
    ),
  };
}
