"""Tests of what values with many fields have in common, held against what attrs makes."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

from agentpool import (
    AgentManifest,
    BudgetConfig,
    Capability,
    ContextConfig,
    McpServerConfig,
    McpTransport,
    ModelConfig,
    ResourceQuota,
    RetryPolicy,
    UsageLimits,
)
from agentpool.drivers import TokenPrice

# Each value, and one field of it with another value.
VALUES: tuple[tuple[attrs.AttrsInstance, dict[str, object]], ...] = (
    (AgentManifest(), {"name": "other"}),
    (BudgetConfig(per="day", tokens=1), {"tokens": 2}),
    (Capability.shell("git"), {"ask_first": True}),
    (ContextConfig(), {"strategy": "summary"}),
    (
        McpServerConfig(name="a", transport=McpTransport.STDIO, command=("b",)),
        {"capabilities": ("*",)},
    ),
    (ModelConfig(remote_model="a", options={"b": [1]}), {"options": {"b": [2]}}),
    (ResourceQuota(), {"max_iterations": 1}),
    (RetryPolicy(), {"max_attempts": 1}),
    (TokenPrice(input_usd_per_million=1, output_usd_per_million=2), {"output_usd_per_million": 3}),
    (UsageLimits(request_limit=1), {"request_limit": 2}),
)


def by_attrs(value: attrs.AttrsInstance) -> object:
    """Return a value with the same fields, of a class whose methods attrs has made."""
    fields = attrs.fields(type(value))
    made = attrs.make_class(
        type(value).__name__,
        {one.name: attrs.field(hash=one.hash) for one in fields},
        frozen=True,
    )
    twin: object = made(**{one.name: getattr(value, one.name) for one in fields})
    return twin


@pytest.mark.parametrize(("value", "change"), VALUES, ids=lambda one: type(one).__name__)
def test_values_are_compared_hashed_and_shown_by_their_fields(
    value: attrs.AttrsInstance, change: dict[str, object]
) -> None:
    """As attrs would do it, which compiles the methods anew in each process."""
    assert repr(value) == repr(by_attrs(value))
    same, other = copy.deepcopy(value), attrs.evolve(value, **change)  # type: ignore[misc]  # of any class
    assert value == same == pickle.loads(pickle.dumps(value))  # our own
    assert hash(value) == hash(same)
    assert value != other
    assert value != by_attrs(value)
    assert (hash(value) == hash(other)) == (hash(by_attrs(value)) == hash(by_attrs(other)))
    assert len({value, same, other}) == 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, None)
