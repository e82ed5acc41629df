/** The deploys whose old files are kept, oldest first, with the files each changed. */
async function backups() {
  const folder = '/var/backups/ai-admin-deploy';
  const deploys = fs.existsSync(folder) ? fs.readdirSync(folder).sort() : [];
  return Object.fromEntries(
    deploys.map((deploy) => [deploy, Object.keys(JSON.parse(readOrNull(`${folder}/${deploy}/manifest.json`) ?? '{}'))]),
  );
}
