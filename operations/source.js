/** `node --check` reads the new text, beside nothing that runs. */
function checkSource(file, text) {
  const type = /\.mjs$/.test(file) ? 'module' : 'commonjs';
  const checked = childProcess.spawnSync(process.execPath, [`--input-type=${type}`, '--check', '-'], { input: text });
  if (checked.status !== 0) {
    const words = checked.stderr.toString().split('\n').filter((line) => /Error/.test(line));
    throw new Failure(`${file}: with our block it is not valid JavaScript (${words[0]}); nothing was written`);
  }
}

/** Replace source files of the application, [{file, content, expected}]; every one is checked before the first is written. */
async function writeSource({ app_dir, api_app, deploy, files }) {
  for (const { file, content } of files) checkSource(file, unpack(content));
  const running = pm2Process(api_app);
  const processes = running ? [running] : [];
  return files.map(({ file, content, expected }) =>
    replaceFile({
      ...{ deploy, service: 'api', processes, file: path.join(app_dir, file), expected, mode: 0o644 },
      content: unpack(content),
    }),
  );
}
