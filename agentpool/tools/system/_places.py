"""A place on the disk: a name in an open folder.

Rules:

1. A file is opened relative to the open folder, by a single name, and never through a link.
2. Only ordinary files are opened. A pipe would hang, a device would never end, and the kernel's
   files about processes would show their environment with its keys.
3. A file is written completely beside its place and then renamed. A reader sees either the old file
   or the new one; a link that has appeared in its place is replaced, not followed.
4. Nothing is written where git finds programs to run: neither below a ``.git`` folder nor in place
   of one.

``_walk_in_roots`` finds a place. All of this blocks, and runs in threads.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import Final, final

import attrs

from agentpool._disk_file import kind_words
from agentpool._errors import ToolError
from agentpool.tools.system._kernel_systems import kernel_devices
from agentpool.tools.system._roots import Parts, join

_FOLDER_FLAGS: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# Should a pipe take the file's place after it was looked at, O_NONBLOCK keeps it from hanging.
_READ_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_NEW_FLAGS: Final = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


@final
@attrs.define(eq=False)
class Place:
    """A name in a folder; the folder is held open, so that no link can redirect it."""

    path: str
    """The path as the model wrote it, for messages."""
    parts: Parts
    """The parts of its full path, without links."""
    name: str
    """The last part; ``.`` for the folder itself."""
    _folder_fd: int | None
    """The descriptor of the folder. ``None``: this platform has no such descriptors, so full paths
    are used."""

    def _at(self, name: str) -> str:
        if self._folder_fd is not None:
            return name
        return os.path.join(self.folder_path, name)  # noqa: PTH118  # as everything here

    @property
    def is_held(self) -> bool:
        """Whether the folder is held open, rather than only known by its path."""
        return self._folder_fd is not None

    @property
    def folder_path(self) -> str:
        """The full path of the folder."""
        return native_path(self.parts if self.name == "." else self.parts[:-1])

    @property
    def full_path(self) -> str:
        """The full path of the place, without links."""
        return native_path(self.parts)

    def look(self) -> os.stat_result | None:
        """Return the status of the file or folder at this place. ``None``: the place is empty.

        Raises:
            OSError: If the system cannot say what is there.
        """
        try:
            return os.stat(self._at(self.name), dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_file(self) -> int:
        """Open the file for reading and return its descriptor.

        Raises:
            ToolError: If the place has something other than an ordinary file. The error says what.
            OSError: If it cannot be opened.
        """
        found = self.look()
        if found is None:
            raise ToolError(f"there is no file {self.path!r}")
        # Looked at before it is opened, for opening a device can be to act on it.
        self._check_ordinary(found)
        fd = os.open(self._at(self.name), _READ_FLAGS, dir_fd=self._folder_fd)
        try:
            self._check_ordinary(os.fstat(fd))
            self._check_no_process(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_folder(self) -> int:
        """Open the folder for listing and return its descriptor.

        Raises:
            OSError: If the place cannot be opened, or is not a folder.
        """
        flags = _FOLDER_FLAGS | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(self._at(self.name), flags, dir_fd=self._folder_fd)
        try:
            self._check_no_process(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check_writable(self) -> os.stat_result | None:
        """Return the status of the file that a write would replace. ``None``: no file is there yet.

        Raises:
            ToolError: If it is not an ordinary file.
        """
        found = self.look()
        if found is not None:
            self._check_ordinary(found)
        return found

    def write(self, data: bytes, *, instead_of: os.stat_result | None) -> None:
        """Write *data* to the place, atomically.

        The data is forced to the disk before the renaming, so a power cut leaves either the old
        file or the new one. The renaming itself is not forced, so a power cut right after the write
        may leave the old file.

        Args:
            data: Everything that the file will hold.
            instead_of: The file to replace, whose permissions are kept. ``None``: a new file is
                made, with the usual permissions of the process.

        Raises:
            ToolError: If the file would configure git. Nothing was written.
            OSError: If the file cannot be written. Nothing has changed.
        """
        if any(part.casefold() == ".git" for part in self.parts):
            raise ToolError(
                f"{self.path!r} is inside .git, where a file can make git run programs; write to "
                "another path"
            )
        temporary = f".agentpool-{secrets.token_hex(8)}.tmp"
        # Until it is whole, whoever may not read the old file may not read this one either.
        mode = 0o666 if instead_of is None else 0o600
        fd = os.open(self._at(temporary), _NEW_FLAGS, mode, dir_fd=self._folder_fd)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                if instead_of is not None and hasattr(os, "fchmod"):
                    os.fchmod(fd, stat.S_IMODE(instead_of.st_mode) & 0o777)
                os.fsync(fd)
            self._rename(temporary)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(self._at(temporary), dir_fd=self._folder_fd)
            raise

    def _rename(self, temporary: str) -> None:
        source, target = self._at(temporary), self._at(self.name)
        os.replace(source, target, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)

    def _check_no_process(self, fd: int) -> None:
        # Links are behind us: /proc/self has become a number.
        numbered = any(part.isdecimal() for part in self.parts)
        if numbered and os.fstat(fd).st_dev in kernel_devices():
            raise ToolError(f"{self.path!r} is kernel data about a process, not a file; leave it")

    def _check_ordinary(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise ToolError(
                f"{self.path!r} is {kind_words(found.st_mode)}; only ordinary files are opened"
            )


def native_path(parts: Parts) -> str:
    """Return *parts* as a path in this platform's form; the first part may be a drive."""
    return join(parts).removeprefix("/" if os.sep != "/" else "")
