"""Walks from a path to a place on the disk without leaving the granted roots.

Rules:

1. A path is walked from ``/`` part by part. Each part is opened inside the previous folder, and
   never through a link. A link is read, and its target is walked like a path from a model. So if a
   folder is swapped for a link during the walk, the access may be refused, but it never reaches a
   different place.
2. ``..`` goes back to the folder that the walk came from.
3. The last name need not exist yet. If it is a link, the link is followed, even if it leads
   nowhere.

Where the platform cannot open files relative to a folder (Windows), links are resolved first and
the result is opened by its full path. The answers are the same, but a folder that is swapped
between the two steps is not noticed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Final, final

from agentpool._errors import ToolError
from agentpool._manifest.capability import Capability, CapabilityKind
from agentpool.tools.system._places import Place, native_path
from agentpool.tools.system._roots import Parts, Root, Roots, is_anything, split

CAN_WALK: Final = {
    os.open,
    os.stat,
    os.mkdir,
    os.readlink,
    os.rename,
    os.unlink,
} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
"""Whether this platform can open files relative to a folder."""

MAX_LINKS: Final = 40
"""The most links on one path: Linux's own limit. A path with more links leads in a circle."""

_MAX_LOOKS: Final = 10_000
"""How often one walk retries because a part has changed or has been created. No path has more parts
than this."""

# With O_PATH a folder on the way need not be readable, as for anybody who names a path.
_PASS_FLAGS: Final = (
    getattr(os, "O_PATH", os.O_RDONLY)
    | getattr(os, "O_DIRECTORY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)


def find_roots(grants: Iterable[Capability], kind: CapabilityKind, folder: str) -> Roots:
    """Return the paths that *grants* of *kind* allow, with links followed now.

    Args:
        grants: An agent's grants.
        kind: ``FILE_READ`` or ``FILE_WRITE``.
        folder: The folder for relative paths.
    """
    texts = [text for grant in grants if grant.kind is kind for text in grant.scope]
    here = Path(folder).absolute()
    granted = tuple(
        Root(text=text, name=(), real=()) if is_anything(text) else _root(text, here / text)
        for text in texts
    )
    return Roots(folder=_root(folder, here), granted=granted)


def _root(text: str, path: Path) -> Root:
    return Root(text=text, name=_parts_of(str(path)), real=_parts_of(os.path.realpath(path)))


def _parts_of(path: str) -> Parts:
    return split(path.replace(os.sep, "/"))


@contextlib.contextmanager
def open_place(
    roots: Roots, path: str, *, make_folders: bool = False, by_step: bool = CAN_WALK
) -> Generator[Place, None, None]:
    """Find the place to which *path* leads, and hold its folder open.

    Args:
        roots: The paths that may be accessed.
        path: The path as the model wrote it.
        make_folders: Whether to create missing folders on the way.
        by_step: Whether to walk step by step. Otherwise all links are resolved first, as on
            Windows.

    Yields:
        The place. Its name was not a link, and if it becomes a link, the link is not followed.

    Raises:
        ToolError: If *path* leads out of *roots*, or nowhere.
        OSError: If a folder on the way cannot be opened.
    """
    if not by_step:
        yield _resolve(roots, path, make_folders=make_folders)
        return
    walk = _Walk(roots, path, make_folders)
    try:
        yield walk.go()
    finally:
        walk.close()


def _resolve(roots: Roots, path: str, *, make_folders: bool) -> Place:
    """Resolve *path* with a single call, which follows every link in it."""
    real = _parts_of(os.path.realpath(native_path(roots.locate(path))))
    if not roots.covers(real):
        raise roots.outside(path)
    place = Place(path, real, real[-1] if real else ".", None)
    if make_folders:
        os.makedirs(place.folder_path, exist_ok=True)  # noqa: PTH103  # as everything here
    return place


@final
class _Walk:
    """One walk: its position, its open folders, and the parts that are left."""

    def __init__(self, roots: Roots, path: str, make_folders: bool) -> None:  # noqa: FBT001  # made in one place
        self._roots = roots
        self._path = path
        self._make_folders = make_folders
        self._left = list(reversed(roots.locate(path)))
        self._names: list[str] = []
        self._fds: list[int] = []
        self._links = 0
        self._looks = 0

    def close(self) -> None:
        """Close the folders."""
        while self._fds:
            os.close(self._fds.pop())

    def go(self) -> Place:
        """Walk to the end.

        Raises:
            ToolError: If the path leads out of the roots, or nowhere.
            OSError: If a folder on the way cannot be opened.
        """
        self._fds.append(os.open("/", _PASS_FLAGS))
        name = "."
        while self._left:
            part = self._left.pop()
            if part == "..":
                self._go_up()
                continue
            if not self._roots.may_pass((*self._names, part)):
                raise self._roots.outside(self._path)
            if self._is_link(part):
                continue
            if not self._left:
                name = part
                break
            self._go_down(part)
        parts = tuple(self._names) if name == "." else (*self._names, name)
        if not self._roots.covers(parts):
            raise self._roots.outside(self._path)
        return Place(self._path, parts, name, self._fds[-1])

    def _go_up(self) -> None:
        # To the folder that we came from, and not to what ".." leads to by now.
        if self._names:
            self._names.pop()
            os.close(self._fds.pop())

    def _is_link(self, part: str) -> bool:
        """Return whether *part* is a link. If it is, continue the walk at its target."""
        here = self._fds[-1]
        try:
            found = os.stat(part, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISLNK(found.st_mode):
            return False
        self._links += 1
        if self._links > MAX_LINKS:
            raise ToolError(
                f"{self._path!r} goes through more than {MAX_LINKS} links; use another path"
            )
        try:
            target = os.readlink(part, dir_fd=here)
        except OSError as exc:
            if exc.errno not in {errno.EINVAL, errno.ENOENT}:
                raise
            self._look_again(part)  # it is not a link any more
            return True
        parts = split(target)
        if target.startswith("/"):
            parts = self._roots.without_links(parts)
            while len(self._fds) > 1:
                os.close(self._fds.pop())
            self._names.clear()
        self._left.extend(reversed(parts))
        return True

    def _go_down(self, part: str) -> None:
        here = self._fds[-1]
        try:
            fd = os.open(part, _PASS_FLAGS, dir_fd=here)
        except FileNotFoundError:
            if not self._make_folders:
                raise ToolError(
                    f"there is no folder {part!r} on the way to {self._path!r}"
                ) from None
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=here)
            self._look_again(part)
            return
        except OSError as exc:
            if exc.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            mode = 0  # it may be gone by now
            with contextlib.suppress(FileNotFoundError):
                mode = os.stat(part, dir_fd=here, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode):
                raise ToolError(f"{part!r} on the way to {self._path!r} is not a folder") from None
            self._look_again(part)  # it was swapped between two looks
            return
        self._names.append(part)
        self._fds.append(fd)

    def _look_again(self, part: str) -> None:
        self._looks += 1
        if self._looks > _MAX_LOOKS:
            raise ToolError(f"the path to {self._path!r} keeps changing; try again")
        self._left.append(part)
