"""The check that trio is running: other event loops are not supported."""

from __future__ import annotations

from typing import Final

import trio

from agentpool._errors import UsageError

_OF_LIVE_OBJECTS: Final = ("pool.", "handle.", "router.")
"""Methods of objects that exist only while trio runs. If their caller is not in trio, trio runs
elsewhere."""

_ASYNC: Final = ("pool.spawn",)
"""Those of these methods that are async."""


def check_trio(name: str) -> None:
    """Raise unless the caller of *name* runs on trio.

    Raises:
        UsageError: If it runs on asyncio, in another thread, or on nothing.
    """
    if not trio.lowlevel.in_trio_task():
        raise outside_of_trio(name)


def outside_of_trio(name: str) -> UsageError:
    """Return the error for a call of *name* that was made outside of trio's tasks."""
    is_worker = _is_in_thread_of_trio()
    if name.startswith(_OF_LIVE_OBJECTS):
        if trio.lowlevel.in_trio_run():
            return UsageError(f"{name}() was called in a callback; call it in a task of trio")
        return in_another_thread(name)
    if is_worker:
        return UsageError(
            f"{name}() needs trio, and was called in a worker thread; enter it in an async "
            "function, and call that with trio.from_thread.run(function)"
        )
    return UsageError(
        f"{name}() needs trio; run the program with trio.run(main), not with "
        "asyncio.run(main()); a server that must stay on asyncio keeps its pool in a thread: "
        "await asyncio.to_thread(trio.run, main), as in examples/asyncio_service.py and on "
        "the page 'Use it beside asyncio'"
    )


def in_another_thread(name: str) -> UsageError:
    """Return the error for a call of *name* in a thread that is not the pool's.

    Args:
        name: The call. Empty: it is not known.
    """
    how, called = "run_sync" if name not in _ASYNC else "run", name or "function"
    ending = ", trio_token=token), with token = trio.lowlevel.current_trio_token(), taken in "
    if trio.lowlevel.in_trio_task():  # there, trio refuses to block
        what = f"{name}() was called" if name else "the pool or one of its agents was used"
        kind = "" if name else "; run_sync becomes run if the function is async"
        return UsageError(
            f"{what} in another thread, by a trio.run of its own; there, write await "
            f"trio.to_thread.run_sync(lambda: trio.from_thread.{how}({called}, ...{ending}"
            f"the pool's thread{kind}"
        )
    if not name:
        return UsageError(
            "the pool or one of its agents was used in another thread; do it in a function, and "
            f"there, write trio.from_thread.run_sync(function, ...{ending}trio's thread"
        )
    tail = ")" if _is_in_thread_of_trio() else f"{ending}trio's thread"
    return UsageError(
        f"{name}() needs trio, and was called in another thread; there, write "
        f"trio.from_thread.{how}({name}, ...{tail}"
    )


def _is_in_thread_of_trio() -> bool:
    """Return whether ``trio.to_thread.run_sync`` started the current thread."""
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True
