/** The two source files that get a block, whole. */
async function source({ app_dir, source_files }) {
  return Object.fromEntries(
    source_files.map((file) => {
      const content = readOrNull(path.join(app_dir, file));
      return [file, content && pack(content)];
    }),
  );
}
