"""The application's source: what speaks of the marketplace is read, and two files of it get a block of ours."""

import os
import re
from collections.abc import Mapping, Sequence

from remote import Failure, files, pm2, services

LARGE = 500_000  # bytes; nobody wrote such a file by hand


def read(*, app_dir: str, paths: Sequence[str], mention: str) -> dict[str, str | None]:
    """Each file whole, by its path below the application's folder: those of `paths`, None for one that is not there,
    and all below src in which the pattern `mention` is found."""
    contents = {path: files.read(os.path.join(app_dir, path)) for path in paths}
    for file in files.below(os.path.join(app_dir, "src")):
        if file.endswith(files.JAVASCRIPT) and os.path.getsize(file) < LARGE:
            content = files.read(file) or b""
            if re.search(mention.encode(), content):
                contents[os.path.relpath(file, app_dir)] = content
    return {path: None if content is None else files.text(content) for path, content in contents.items()}


def check(app: str, path: str, content: bytes) -> None:
    """`node --check` reads the new text on its standard input, beside nothing that runs. Raises Failure."""
    kind = "module" if path.endswith(".mjs") else "commonjs"
    done = pm2.run_node(app, "node", f"--input-type={kind}", "--check", "-", stdin=content)
    if done.status != 0:
        error = done.line_with("Error")
        raise Failure(f"{path}: with our block it is not valid JavaScript ({error}); nothing was written")


def write(
    deploy: str, *, app: str, app_dir: str, contents: Mapping[str, str], expected: Mapping[str, str | None]
) -> None:
    """Replace the files, each by its path below `app_dir`; every one is checked before the first is written."""
    new = {path: files.content(text) for path, text in contents.items()}
    for path, content in new.items():
        check(app, path, content)
    running = pm2.processes(app)
    for path, content in new.items():
        file = os.path.join(app_dir, path)
        services.replace_file(deploy, services.of(app), running, file, content, expected[path], 0o644)
