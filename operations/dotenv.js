// Edits .env in place: every byte that is not an assignment of ours stays as it is.

/** Text whose every byte is kept: valid UTF-8 as itself, any other byte as a lone surrogate (U+DC80 to U+DCFF). */
function decodeBytes(buffer) {
  const whole = buffer.toString();
  if (Buffer.from(whole).equals(buffer)) return whole;
  let text = '';
  for (let at = 0; at < buffer.length; ) {
    const width = [1, 2, 3, 4].find((n) => {
      const piece = buffer.subarray(at, at + n);
      return piece.length === n && Buffer.from(piece.toString()).equals(piece) && [...piece.toString()].length === 1;
    });
    text += width ? buffer.subarray(at, at + width).toString() : String.fromCharCode(0xdc00 + buffer[at]);
    at += width ?? 1;
  }
  return text;
}

function encodeBytes(text) {
  const parts = text.split(/((?<![\ud800-\udbff])[\udc80-\udcff])/);
  return Buffer.concat(parts.map((part, odd) => (odd % 2 ? Buffer.from([part.charCodeAt(0) - 0xdc00]) : Buffer.from(part))));
}

// The grammar that dotenv 17 reads, in pieces. Quoted values may span lines; a quote that never closes is plain text.
const QUOTED = [`'(?:\\\\'|[^'])*'`, `"(?:\\\\"|[^"])*"`, '`(?:\\\\`|[^`])*`'].map((body) => `\\s*${body}`).join('|');
const ASSIGNMENT = new RegExp(
  `^(?<indent>\\s*)(?<export>export\\s+)?(?<key>[\\w.-]+)(?:\\s*=\\s*?|:\\s+?)(?<value>${QUOTED}|[^#\\r\\n]+)?(?<blank>\\s*)(?<comment>#.*)?$`,
  'gm',
);

/** [{start, end, key, prefix, suffix}], in order; [start, end) is the assignment without the line's end. */
function assignments(text) {
  return [...text.matchAll(ASSIGNMENT)].map((match) => {
    const { indent, key } = match.groups;
    const lead = /^[^]*[\r\n]/.exec(indent)?.[0].length ?? (indent.startsWith('\ufeff') ? 1 : 0); // not its own
    // `\s*#.*` reaches over line ends: a comment on a later line is not its own either
    const tail = /[\r\n]/.test(match.groups.blank) ? '' : (match.groups.comment ?? '');
    const whole = tail ? match[0] : match[0].slice(0, match[0].length - match.groups.blank.length - (match.groups.comment ?? '').length);
    return {
      start: match.index + lead,
      end: match.index + whole.trimEnd().length,
      key,
      exported: match.groups.export !== undefined,
      comment: tail,
    };
  });
}

/** How a value is written so that dotenv 17 and python-dotenv 1.2 both read it back; credentials.py refuses what cannot be. */
function quote(value) {
  if (/^[\w.@%+,:/=!?^~*()&;|<>{}[\]$-]+$/.test(value)) return value;
  return `'${value}'`;
}

/** Set each key once, where its last assignment stands, or at the end. `once`: keys to leave as they are but for duplicates. */
function edit(text, values, once) {
  let result = text;
  const eol = /\r\n/.test(text) ? '\r\n' : '\n';
  for (const key of [...Object.keys(values), ...once]) {
    const found = assignments(result).filter((each) => each.key === key);
    const last = found.pop();
    if (last && key in values) {
      const { start, end, exported, comment } = last;
      const assignment = `${exported ? 'export ' : ''}${key}=${quote(values[key])}${comment ? ` ${comment}` : ''}`;
      result = result.slice(0, start) + assignment + result.slice(end);
    }
    for (const { start, end } of found.reverse()) {
      const rest = result.slice(end).replace(/^[^\S\r\n]*(\r\n|\n|\r)/, '');
      result = result.slice(0, start) + rest;
    }
    if (!last && key in values) {
      const ended = result === '' || /[\r\n]$/.test(result);
      result += `${ended ? '' : eol}${key}=${quote(values[key])}${eol}`;
    }
  }
  return result;
}

async function writeDotenv({ app_dir, api_app, deploy, expected, values, once }) {
  const file = path.join(app_dir, '.env');
  const { parse } = createRequire(`${app_dir}/`)('dotenv');
  const old = readOrNull(file) ?? Buffer.alloc(0);
  const content = encodeBytes(edit(decodeBytes(old), values, once));

  // Before anything is written, the application's own dotenv must read the new text as meant: ours as wanted, all else as before.
  const before = parse(old.toString());
  const after = parse(content.toString());
  const wrong = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter(
    (key) => after[key] !== (key in values ? values[key] : before[key]),
  );
  if (wrong.length) {
    throw new Failure(`.env: ${wrong.join(', ')} would not be read as meant, so nothing was written; look for an unclosed quote`);
  }
  const running = pm2Process(api_app);
  const processes = running ? [running] : [];
  return replaceFile({ deploy, service: 'api', processes, file, content, expected, mode: 0o600 });
}
