"""What holds for every tool, every grant and everything that a model may write."""

import json
from types import SimpleNamespace
from typing import TypedDict, cast

import attrs
from hypothesis import given
from hypothesis import strategies as st

from agentpool import Capability, CapabilityKind, PrivacyTier
from agentpool._manifest.capability import grants_allow
from agentpool._messages import Json
from agentpool.abc import AgentContext, ToolContext, ToolResult
from agentpool.tools import ToolRegistry, tool
from agentpool.tools._registry import EGRESS_KINDS

AGENT = cast("AgentContext", SimpleNamespace(agent_id=1, name="reader"))
CONTEXT = ToolContext(AGENT, "call-1")

SCOPES = st.lists(st.sampled_from(["*", "a", "a/b", "b", "c.example", ".example"]), max_size=3)
CAPABILITIES = st.builds(
    Capability,
    st.sampled_from(CapabilityKind),
    SCOPES.map(tuple),
    st.integers(0, 3),
)

# Text as JSON can carry it: no half of a character, which no UTF-8 has a form for.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@attrs.frozen
class Place:
    """Somewhere."""

    name: str
    floor: int = 0


class Wishes(TypedDict, total=False):
    """What one may wish for."""

    quiet: bool
    places: list[Place]


seen: list[dict[str, object]] = []


@tool
def book(  # noqa: PLR0917  # one of each kind
    name: str,
    nights: int,
    price: float | None = None,
    place: Place | None = None,
    wishes: Wishes | None = None,
    notes: dict[str, list[str]] | None = None,
) -> str:
    """Book a room."""
    plain = cast("dict[str, object] | None", wishes)
    if plain and "places" in plain:
        plain = {**plain, "places": [attrs.asdict(p) for p in cast("list[Place]", plain["places"])]}
    seen.append(
        {
            "name": name,
            "nights": nights,
            "price": price,
            "place": place and attrs.asdict(place),
            "wishes": plain,
            "notes": notes,
        }
    )
    return "booked"


PLACES = st.fixed_dictionaries({"name": TEXT, "floor": st.integers(-(2**63), 2**63 - 1)})
BOOKINGS = st.fixed_dictionaries(
    {"name": TEXT, "nights": st.integers(-(2**63), 2**63 - 1)},
    optional={
        "price": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "place": st.none() | PLACES,
        "wishes": st.none()
        | st.fixed_dictionaries(
            {}, optional={"quiet": st.booleans(), "places": st.lists(PLACES, max_size=3)}
        ),
        "notes": st.none() | st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3),
    },
)


async def call(arguments: str) -> ToolResult:
    """Call the tool as an agent would, and say what it saw in ``seen``."""
    seen.clear()
    return await book.run(arguments, CONTEXT)


@given(
    grants=st.lists(CAPABILITIES, max_size=4),
    required=st.none() | CAPABILITIES,
    privacy=st.sampled_from(PrivacyTier),
)
async def test_what_is_not_granted_is_not_shown_and_not_run(
    grants: list[Capability], required: Capability | None, privacy: PrivacyTier
) -> None:
    """An agent asks the registry before every call; what is refused never executes."""
    calls = 0

    @tool(capability=required)
    def count() -> None:
        """Count the calls."""
        nonlocal calls
        calls += 1

    registry = ToolRegistry([count])
    refusal = registry.refusal("count", grants, privacy)
    shown = registry.definitions_for(grants, privacy)
    found = registry.get("count")
    assert found is not None
    if refusal is None:
        await found.run("{}", CONTEXT)
    granted = grants_allow(grants, required)
    blocked = (
        required is not None and required.kind in EGRESS_KINDS and privacy is PrivacyTier.SOVEREIGN
    )
    assert (refusal is None) == (granted and not blocked)
    assert calls == (1 if granted and not blocked else 0)
    assert bool(shown) == (refusal is None)
    if not granted:
        assert refusal is not None
        assert "capability" in refusal


@given(required=CAPABILITIES, privacy=st.sampled_from(PrivacyTier))
def test_without_grants_nothing_that_needs_one_is_allowed(
    required: Capability, privacy: PrivacyTier
) -> None:
    """Nothing is allowed unless it is granted."""

    @tool(capability=required)
    def act() -> None:
        """Act."""

    registry = ToolRegistry([act])
    assert registry.definitions_for((), privacy) == ()
    assert registry.refusal("act", (), privacy) is not None


@given(arguments=BOOKINGS, spaces=st.sampled_from([None, 2]), ascii_only=st.booleans())
async def test_valid_arguments_arrive_as_they_were_sent(
    arguments: dict[str, object], spaces: int | None, *, ascii_only: bool
) -> None:
    """Whatever the texts are made of, and however the JSON is written."""
    text = json.dumps(arguments, indent=spaces, ensure_ascii=ascii_only)
    assert await call(text) == ToolResult("booked")
    defaults = dict.fromkeys(("price", "place", "wishes", "notes"))
    assert seen == [{**defaults, **arguments}]


@given(value=JSON)
async def test_any_json_gives_a_result(value: Json) -> None:
    """A model may send anything; the agent goes on."""
    result = await call(json.dumps(value))
    assert result.is_error == (not seen)


@given(text=st.text() | st.text('{}[]":,\\\\/ntrue0123456789.eE+- ', max_size=40))
async def test_any_text_gives_a_result(text: str) -> None:
    """Also text that is not JSON, and text that nearly is."""
    result = await call(text)
    assert result.is_error
    assert result.content.startswith("invalid arguments, nothing was run:\n- ")
    assert not seen


@given(arguments=BOOKINGS, value=JSON, data=st.data())
async def test_one_wrong_key_anywhere_is_told_and_nothing_runs(
    arguments: dict[str, Json], value: Json, data: st.DataObject
) -> None:
    """A misspelt key that is passed over in silence is a wish that nobody hears."""
    objects: list[dict[str, Json]] = [arguments]
    for key in ("place", "wishes"):
        inner = arguments.get(key)
        if isinstance(inner, dict):
            objects.append(inner)
    target = data.draw(st.sampled_from(objects))
    target["nights_"] = value
    result = await call(json.dumps(arguments))
    assert result.is_error
    assert "nights_" in result.content
    assert not seen
