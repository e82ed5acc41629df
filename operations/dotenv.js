// Edits .env in place: every byte that is not an assignment of ours stays as it is.

/** The bytes with `changes` made: [{start, end, put}], in order, by offsets of the text. */
function splice({ bytes, starts }, changes) {
  const parts = [];
  let at = 0;
  for (const { start, end, put } of changes) {
    parts.push(bytes.subarray(at, starts[start]), Buffer.from(put));
    at = starts[end];
  }
  return Buffer.concat([...parts, bytes.subarray(at)]);
}

/** What stands before an assignment in its line, and after it. */
function around(text, { start, end }) {
  const line = text.lastIndexOf('\n', start - 1) + 1;
  return { line, before: text.slice(line, start), after: /^[^\n]*\n?/.exec(text.slice(end))[0] };
}

/** Take an assignment out: its whole line, or where a comment stands beside it, all but the comment. */
function removal(text, assignment) {
  const { line, before, after } = around(text, assignment);
  if (/^[ \t]*(export[ \t]+)?$/.test(before) && /^[ \t]*\n?$/.test(after)) {
    return { start: line, end: assignment.end + after.length, put: '' };
  }
  const exported = /(export[ \t]+)?$/.exec(before)[0].length;
  return { start: assignment.start - exported, end: assignment.end + /^[ \t]*/.exec(after)[0].length, put: '' };
}

// A value that starts with a quote, and is no plain text between two of the same kind.
const ODD = /^[\w.-]+\s*[=:]\s*(?=['"`])(?!(['"])(?:(?!\1)[^\\]|\\(?!\1))*\1$)/;

/**
 * Would python-dotenv read an assignment here as dotenv does? Not where something odd before it may, to python-dotenv, be a
 * value that goes on (a line that is none, a quote left open, a backslash before a quote), nor where its line or a later one is odd.
 */
function isPlainPlace(text, all, mine) {
  const { line, before, after } = around(text, mine);
  let at = 0;
  const evenBefore = all.slice(0, all.indexOf(mine) + 1).every((each) => {
    const gap = text.slice(at, each.from);
    at = each.to;
    const odd = each !== mine && ODD.test(text.slice(each.start, each.end));
    return !odd && gap.split('\n').every((between) => /^\s*(#[^\n]*)?$/.test(between));
  });
  const alike = new RegExp(`^[^#\\n]*(?<![\\w.-])${mine.key}'?\\s*=`, 'm');
  return (
    evenBefore &&
    /^[ \t]*(export[ \t]+)?$/.test(line === 0 ? before.replace(/^\ufeff/, '') : before) &&
    /^[ \t]*(#.*)?\n?$/.test(after) &&
    !alike.test(text.slice(mine.end))
  );
}

function append(bytes, assignment) {
  const text = bytes.toString('latin1');
  const eol = text.match(/\r\n|\r|\n/g)?.at(-1) ?? '\n';
  const ended = /[\r\n]$/.test(text) || text === '' || text === '\xef\xbb\xbf';
  return Buffer.concat([bytes, Buffer.from(`${ended ? '' : eol}${assignment}${eol}`)]);
}

/** Texts that may do, the best first: `key` once, set to `literal`; null leaves its last assignment as it is. */
function candidates(bytes, key, literal) {
  const { text, starts } = dotenvText(bytes);
  const all = dotenvAssignments(text);
  const mine = all.filter((each) => each.key === key);
  const last = mine.at(-1);
  if (mine.some(({ start, end }) => /^[\w.-]+\s*[=:]\s*?\n/.test(text.slice(start, end)))) {
    throw new Failure(`.env: the value of ${key} is on another line than its name, so nothing was written; join the two lines`);
  }
  const removals = mine.map((each) => removal(text, each));
  const inPlace = (changes) => splice({ bytes, starts }, [...removals.slice(0, -1), ...changes]);
  if (literal === null) return [inPlace([])];
  const assignment = `${key}=${literal}`;
  const atEnd = append(splice({ bytes, starts }, removals), assignment);
  if (!last || !isPlainPlace(text, all, last)) return [atEnd];
  const gap = text[last.end] === '#' ? ' ' : ''; // python-dotenv wants a blank before a comment
  return [inPlace([{ start: last.start, end: last.end, put: assignment + gap }]), atEnd];
}

/** Set each of `values`, written as in `literals`; of each key of `once` keep the last assignment. Throws Failure. */
function edit(bytes, { values, literals, once }, parse) {
  const same = (a, b) => Object.keys({ ...a, ...b }).every((key) => a[key] === b[key]);
  for (const key of [...Object.keys(values), ...once]) {
    const before = parse(bytes);
    const wanted = { ...before, [key]: values[key] ?? before[key] };
    const found = candidates(bytes, key, literals[key] ?? null).find((each) => same(parse(each), wanted));
    if (!found) {
      throw new Failure(`.env: ${key} cannot be set without changing what other lines mean, so nothing was written; is a quote left open?`);
    }
    bytes = found;
  }
  return bytes;
}

async function writeDotenv({ app_dir, api_app, deploy, expected, values, literals, once }) {
  const file = path.join(app_dir, '.env');
  const { parse } = createRequire(`${app_dir}/`)('dotenv'); // the application's own judges each edit before it is written
  const content = edit(readOrNull(file) ?? Buffer.alloc(0), { values, literals, once }, parse);
  const running = pm2Process(api_app);
  const processes = running ? [running] : [];
  return replaceFile({ deploy, service: 'api', processes, file, content, expected, mode: 0o600 });
}
