/** Put back the files that one deploy changed, and make nginx and the API run them. What stands there now is kept first. */
async function rollBack(data) {
  const { undo: undone, deploy, api_app } = data;
  const manifest = JSON.parse(readOrNull(`${BACKUPS}/${undone}/manifest.json`) ?? 'null');
  if (!manifest) throw new Failure(`no backup of deploy ${undone}; it was pruned or never was`);
  const running = pm2Process(api_app);
  const [nginxFiles, apiFiles] = [(file) => file.startsWith(SITES), (file) => !file.startsWith(SITES)].map((ours) =>
    Object.keys(manifest).filter(ours),
  );
  for (const [service, processes, files] of [
    ['nginx', nginxWorkers(), nginxFiles],
    ['api', running ? [running] : [], apiFiles],
  ]) {
    if (!files.length) continue;
    note(service, processes, Object.fromEntries(files.map((file) => [file, backUp(deploy, file)])));
    for (const file of files) restore(file, manifest[file]);
  }
  if (nginxFiles.length) await reloadNginx(data);
  if (apiFiles.length) await restartApi(data);
}
