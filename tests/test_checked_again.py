"""What was right once does not make another value of the same type right, nor the other way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agentpool import (
    AgentManifest,
    CapabilityKind,
    ManifestError,
    McpServerConfig,
    McpTransport,
    ModelConfig,
    RetryPolicy,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.drivers import FunctionDriver
from agentpool.observe import Event, intervals_of

TOO_LONG = 10**400
DRIVER = FunctionDriver(lambda _: "done")


class Text(str):
    """As numpy and others have them."""

    __slots__ = ()


def _spawn(**named: object) -> Callable[[], object]:
    return lambda: SpawnConfig(AgentManifest(), "go", **named)  # type: ignore[arg-type]


def _server(on_unknown: str, command: tuple[object, ...] = ("serve",)) -> Callable[[], object]:
    return lambda: McpServerConfig(
        name="files",
        transport=McpTransport.STDIO,
        command=command,  # type: ignore[arg-type]
        on_unknown=on_unknown,  # type: ignore[arg-type]
    )


PAIRS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "a number": (
        lambda: RetryPolicy(max_attempts=3),
        lambda: RetryPolicy(max_attempts=TOO_LONG),
    ),
    "a number for a float": (
        lambda: RetryPolicy(base_seconds=1),
        lambda: RetryPolicy(base_seconds=TOO_LONG),
    ),
    "a word of a few": (_server("rerun"), _server("often")),
    "items of a tuple": (_server("ask", ("serve", "x")), _server("ask", ("serve", 1))),
    "items of another tuple": (_spawn(name="a", history=()), _spawn(name="a", history=("hi",))),
    "a number of a config": (_spawn(name="a", priority=1), _spawn(name="a", priority=TOO_LONG)),
    "items of an argument": (
        lambda: intervals_of(list[Event]()),
        lambda: intervals_of([3]),  # type: ignore[list-item]
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_value_is_judged_by_itself(kind: str) -> None:
    """The types of earlier values decide only where the type says all."""
    right, wrong = PAIRS[kind]
    for _ in range(3):
        right()
        with pytest.raises((UsageError, ManifestError)):
            wrong()


async def test_an_argument_is_judged_by_itself() -> None:
    """As a field is."""
    for _ in range(3):
        async with open_pool(DRIVER, random_seed=1):
            pass
        with pytest.raises(UsageError, match="random_seed must be an int or None"):
            async with open_pool(DRIVER, random_seed=TOO_LONG):
                pass


def test_texts_and_lists_become_plain_each_time() -> None:
    """Also after the same field has had a plain text."""
    for _ in range(3):
        for name in ("a", Text("a")):
            model = ModelConfig(remote_model=name, provider=Text("openai"))
            assert type(model.remote_model) is type(model.provider) is str
        for command in (("a",), ["a"], (Text("a"),), ("a", Text("b"))):
            made = _server("ask", command)()  # type: ignore[arg-type]
            assert isinstance(made, McpServerConfig)
            assert [type(made.command), *map(type, made.command)] == [tuple, *[str] * len(command)]


def test_a_type_that_was_refused_is_refused_again() -> None:
    """And named as before."""
    for _ in range(3):
        for wrong in (3, b"x", ["x"], CapabilityKind.MEMORY):
            with pytest.raises(UsageError, match="remote_model must be a str or None"):
                ModelConfig(remote_model=wrong)  # type: ignore[arg-type]
            assert ModelConfig(remote_model="x").remote_model == "x"
