"""Names drivers and tools by import path, so that a node can import them."""

from __future__ import annotations

import importlib

from agentpool._errors import UsageError
from agentpool.abc import Driver, Tool
from agentpool.tools._registry import ToolRegistry


def path_of(what: str, thing: object) -> str:
    """Return the import path ``module:name`` of *thing*, which works on a node too.

    Args:
        what: The name of the parameter, for errors.
        thing: An import path, or a function or class at the top of a module.

    Raises:
        UsageError: If a node could not import it under that name.
    """
    if isinstance(thing, str):
        module, colon, name = thing.partition(":")
        if not (colon and module and name) or thing.count(":") > 1:
            raise UsageError(
                f"{what} must be an import path such as 'my_package.models:open_model', "
                f"got {thing!r}"
            )
        return thing
    module = str(getattr(thing, "__module__", ""))
    name = str(getattr(thing, "__qualname__", ""))
    if not (module and name) or "<" in name:
        raise UsageError(
            f"{what} must be an import path, or a function at the top of a module, got {thing!r}; "
            "write 'my_package.models:open_model'"
        )
    if module == "__main__":
        raise UsageError(
            f"{what} {name!r} is in the program's main file, which no node can import; move it to "
            "a module"
        )
    return f"{module}:{name}"


def find(path: str) -> object:
    """Return the object that *path* names.

    Raises:
        UsageError: If *path* cannot be imported here. The error says why.
    """
    module, _, name = path.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise UsageError(f"{path!r} cannot be imported: {type(error).__name__}: {error}") from error
    return found


def find_as(what: str, path: str) -> object:
    """Return the object that *path* names, if it can serve as *what*: ``driver`` or ``tools``.

    Raises:
        UsageError: If the object cannot be imported here, or cannot serve as *what*. The error says
            why.
    """
    found = find(path)
    if what == "tools" and isinstance(found, Tool):
        raise UsageError(f"tools {path!r} is a single tool; name a registry: ToolRegistry([...])")
    if isinstance(found, Driver if what == "driver" else ToolRegistry) or callable(found):
        return found
    wanted = "a Driver, or a function that opens one"
    if what == "tools":
        wanted = "a ToolRegistry, or a function that makes one for each agent"
    raise UsageError(f"{what} {path!r} must be {wanted}, got {found!r}")
