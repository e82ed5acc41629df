// Answers questions of the tests, a JSON array [name, …arguments] a line, in one process. `bytes` travel as base64.
// argv: the folder of the real dotenv, that of npm's semver.
const fs = require('fs');
const path = require('path');
const readline = require('readline');

const [dotenvFolder, semverFolder] = process.argv.slice(2);
const { parse } = require(dotenvFolder);
const semver = require(semverFolder);

// dotenv's own pattern, out of its source: the tests find the assignments with it, not with our copy
const LINE = /const LINE = \/(.*)\/mg/.exec(fs.readFileSync(path.join(dotenvFolder, 'lib/main.js'), 'utf8'))[1];

const answers = {
  parse: (bytes) => parse(Buffer.from(bytes, 'base64')),
  parseAll: (files) => files.map((bytes) => parse(Buffer.from(bytes, 'base64'))),
  /** [key, its start, the end of its value] of each assignment, in UTF-16 units of `text`, whose line ends are all LF. */
  assignments: (text) =>
    [...text.matchAll(new RegExp(LINE, 'dgm'))].map((match) => {
      const end = match.indices[2]?.[1] ?? text.indexOf(/^\s*=/.test(text.slice(match.indices[1][1])) ? '=' : ':', match.indices[1][1]) + 1;
      return [match[1], match.indices[1][0], text.slice(0, end).trimEnd().length];
    }),
  pattern: () => LINE,
  satisfies: (version, range) => semver.satisfies(version, range),
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [name, ...values] = JSON.parse(line);
  console.log(JSON.stringify(answers[name](...values) ?? null));
});
