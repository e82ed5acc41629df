"""Files: read, write whole or not at all, links, digests."""

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress

from remote import Failure

Ids = tuple[int, int]  # of user and group
JAVASCRIPT = (".js", ".cjs", ".mjs", ".ts")


def read(path: str) -> bytes | None:
    """The file's bytes, None when there is none (or of a process in /proc that ended meanwhile)."""
    with suppress(FileNotFoundError, NotADirectoryError, ProcessLookupError), open(path, "rb") as file:
        return file.read()
    return None


def read_text(path: str) -> str:
    """As `text`, without whitespace around it; empty when there is no file."""
    return text(read(path) or b"").strip()


def size(path: str) -> int:
    """Of a file, in bytes; 0 where there is none."""
    with suppress(OSError):
        return os.path.getsize(path)
    return 0


def tail(path: str, size: int = 64 * 1024) -> str:
    """The last `size` bytes of a file, however large it is; empty when it cannot be read."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size).decode(errors="replace").rstrip()
    return ""


def link(path: str) -> str:
    """Where it leads; empty where it is not a link."""
    with suppress(OSError):
        return os.readlink(path)
    return ""


def names(folder: str) -> list[str]:
    """What is in the folder, sorted; nothing where it is not one."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(folder))
    return []


def below(folder: str) -> list[str]:
    """Every file in it, at any depth, with its whole path; links are left out."""
    found = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    return [path for path in found if not os.path.islink(path)]


def text(content: bytes) -> str:
    """Bytes as text without loss: what is not UTF-8 becomes lone surrogates, which JSON carries."""
    return content.decode("utf-8", "surrogateescape")


def content(text: str) -> bytes:
    """What `text` was made of."""
    return text.encode("utf-8", "surrogateescape")


def sha256(content: bytes | None) -> str | None:
    """Of the content; None stays None."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def require(path: str, digest: str | None) -> None:
    """Raises Failure where the file is another than the plan saw; `digest` is its SHA-256, None where it had none."""
    if sha256(read(path)) != digest:
        raise Failure(f"{path} was changed by somebody else just now; run again")


def reason(error: OSError) -> str:
    """As `ENOSPC: No space left on device, /opt/…`."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"{name}: {error.strerror or error}" + (f", {error.filename}" if error.filename else "")


def why(error: Exception) -> str:
    """In one line: a Failure's message, an OSError's reason, a defect with its place in the source."""
    if isinstance(error, (Failure, OSError)):
        return reason(error) if isinstance(error, OSError) else str(error)
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename} line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {error}{place}"


def write_whole(
    path: str,
    content: bytes,
    mode: int,
    last: Callable[[], None] = lambda: None,
    like: str = "",
    owner: Ids | None = None,
) -> None:
    """Whole or not at all, and on the disk when this returns. Raises Failure, and the old file stands.

    Owner, group, mode and extended attributes (ACLs) stay those of the old file; a new one gets those of the file
    `like`, or else `mode` and `owner`. `last` runs when only the rename is left.
    """
    new = temporary(path)
    try:
        remove(new)  # of a step that was killed
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            attributes = path if os.path.isfile(path) and not os.path.islink(path) else like
            _set_attributes(file.fileno(), attributes, mode, owner)  # before there is content
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        last()
        os.replace(new, path)
    except Exception as error:
        with suppress(OSError):  # a read-only file system
            remove(new)
        raise Failure(f"{path} was not written, and the old one stands: {why(error)}") from None
    sync(os.path.dirname(path))


def owner(path: str) -> Ids:
    """The file's user and group."""
    stat = os.stat(path)
    return stat.st_uid, stat.st_gid


def give(folder: str, owner: Ids) -> None:
    """Change the owner of the folder and all in it, links themselves too."""
    for parent, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            os.chown(f"{parent}/{name}", *owner, follow_symlinks=False)


def _set_attributes(descriptor: int, like: str, mode: int, owner: Ids | None) -> None:
    if not os.path.exists(like):
        if owner:
            os.fchown(descriptor, *owner)
        return os.fchmod(descriptor, mode)
    old = os.stat(like)
    os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)
    try:
        for name in os.listxattr(like):
            os.setxattr(descriptor, name, os.getxattr(like, name))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise


def place_symlink(path: str, target: str, last: Callable[[], None] = lambda: None) -> None:
    """A symlink at `path`, in one rename, whatever is there. `last` runs when only that is left."""
    new = temporary(path)
    remove(new)
    os.symlink(target, new)
    try:
        last()
        os.replace(new, path)
    except Exception:
        remove(new)
        raise
    sync(os.path.dirname(path))


def temporary(path: str) -> str:
    """A name beside the file, on its file system. The leading dot keeps it out of nginx's `sites-enabled/*`."""
    return "{}/.{}.ai-admin-deploy-new".format(*os.path.split(path))


def sync(folder: str) -> None:
    """Flush its entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """A file or a link, or nothing."""
    try:
        os.unlink(path)
    except OSError:  # of another kind where nothing is there: a read-only filesystem's
        if os.path.lexists(path):
            raise


def remove_tree(path: str) -> None:
    """A folder with all in it, a link, or nothing."""
    import shutil  # takes 3 ms, and a look needs none of it

    os.unlink(path) if os.path.islink(path) else shutil.rmtree(path, ignore_errors=True)


def make_private_folder(path: str) -> None:
    """With its parents, each that is new for root alone."""
    if not os.path.isdir(path):
        make_private_folder(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
