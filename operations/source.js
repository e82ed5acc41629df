/** Replace one source file of the application; `node --check` reads the new text first, beside nothing that runs. */
async function writeSource({ app_dir, api_app, deploy, file, content, expected }) {
  const whole = path.join(app_dir, file);
  const check = (text) => {
    const type = /\.mjs$/.test(file) ? 'module' : 'commonjs';
    const checked = childProcess.spawnSync(process.execPath, [`--input-type=${type}`, '--check', '-'], { input: text });
    if (checked.status !== 0) {
      const words = checked.stderr.toString().split('\n').filter((line) => /Error/.test(line));
      throw new Failure(`${file}: with our block it is not valid JavaScript (${words[0]}); nothing was written`);
    }
  };
  const running = pm2Process(api_app);
  const processes = running ? [running] : [];
  return replaceFile({
    ...{ deploy, service: 'api', processes, file: whole, expected, mode: 0o644, check },
    content: unpack(content),
  });
}
