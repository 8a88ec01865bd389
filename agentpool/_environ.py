"""The environment of child processes: a few harmless variables, and no keys or tokens.

Rules:

1. A child's environment is built from a list of whole names. The list has no prefixes or patterns,
   since the name of a secret could match them.
2. If one kind of child needs more variables, their names are listed next to the code that starts
   it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

ORDINARY: Final = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "TZ", "TMPDIR",
    # The user's language. All that POSIX and glibc know.
    "LANG", "LANGUAGE", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION",
    "LC_MEASUREMENT", "LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER",
    "LC_TELEPHONE", "LC_TIME",
    # The same on Windows.
    "APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATHEXT",
    "PROCESSOR_ARCHITECTURE", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME",
    "USERPROFILE",
})  # fmt: skip
"""What programs need to find their files and speak the user's language."""

LIBRARIES: Final = frozenset({
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "PYTHONPATH",
    "PYTHONHOME", "VIRTUAL_ENV",
})  # fmt: skip
"""What a child in Python also needs, to load the modules that its parent can load."""


def build_environ(environ: Mapping[str, str], *, also: Collection[str] = ()) -> dict[str, str]:
    """Return the variables of *environ* that any child may see, and the ones in *also*.

    >>> build_environ({"HOME": "/root", "LC_TOKEN": "x"})
    {'HOME': '/root'}
    """
    return {name: text for name, text in environ.items() if name in ORDINARY or name in also}
