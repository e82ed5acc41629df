/**
 * Of each wanted package: the installed version; whether all it depends on is there too (a package half removed is
 * not installed); the range in package.json; the version in package-lock.json. Reads files; npm itself takes half a second.
 */
async function npm({ app_dir, packages }) {
  const read = (file) => JSON.parse(readOrNull(file) ?? 'null');
  const manifest = read(path.join(app_dir, 'package.json'));
  const lock = read(path.join(app_dir, 'package-lock.json'));

  // Node's own search: the nearest node_modules upwards.
  const find = (name, from) => {
    for (let folder = from; folder.startsWith(app_dir); folder = path.dirname(folder)) {
      const candidate = path.join(folder, 'node_modules', name);
      if (fs.existsSync(path.join(candidate, 'package.json'))) return candidate;
    }
    return null;
  };
  const isComplete = (folder, seen) => {
    if (seen.has(folder)) return true;
    seen.add(folder);
    const own = read(path.join(folder, 'package.json'));
    return Object.keys(own.dependencies ?? {}).every((name) => {
      if (own.optionalDependencies?.[name]) return true;
      const found = find(name, folder);
      return found !== null && isComplete(found, seen);
    });
  };

  return Object.fromEntries(
    Object.keys(packages).map((name) => {
      const folder = path.join(app_dir, 'node_modules', name);
      const own = read(path.join(folder, 'package.json'));
      return [
        name,
        {
          version: own?.version ?? null,
          complete: own !== null && isComplete(folder, new Set()),
          range: manifest.dependencies?.[name] ?? manifest.optionalDependencies?.[name] ?? null,
          locked: lock?.packages?.[`node_modules/${name}`]?.version ?? null,
        },
      ];
    }),
  );
}
