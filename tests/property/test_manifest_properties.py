"""What holds of manifests for every text, and for every key that could be misplaced."""

from collections.abc import Mapping

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentpool import AgentManifest, ManifestError, ModelConfig, PrivacyTier, ResourceQuota
from agentpool._manifest.manifest import is_loopback_url

TABLES: Mapping[str, type[attrs.AttrsInstance]] = {
    "": AgentManifest,
    "[model]": ModelConfig,
    "[resources]": ResourceQuota,
}
KEYS = [(table, field.name) for table, cls in TABLES.items() for field in attrs.fields(cls)]
TOML_VALUES = st.sampled_from(
    [
        "0",
        "-1",
        "1",
        "5000",
        "0.5",
        "nan",
        "inf",
        "-inf",
        "true",
        "''",
        "'x'",
        "[]",
        "['x']",
        "{}",
        "[{}]",
        "1979-05-27",
        "1e400",
        "'Standard'",
        "'openai'",
        "'http://localhost'",
    ]
)
QUOTAS = st.builds(
    ResourceQuota,
    max_iterations=st.integers(1, 10**6),
    max_tool_calls=st.integers(1, 10**6),
    max_cost_usd=st.floats(0, 1e9, allow_nan=False),
    max_tokens_budget=st.none() | st.integers(1, 10**9),
    max_repeated_calls=st.integers(2, 100),
    run_seconds=st.none() | st.floats(0.001, 1e6),
    request_seconds=st.none() | st.floats(0.001, 1e6),
    tool_seconds=st.floats(0.001, 1e6),
)


def read(text: str) -> None:
    """Read *text*; any other error than a list of faults is a failure."""
    try:
        manifest = AgentManifest.parse(text, source="x.toml")
    except ManifestError as error:
        faults = error.faults
    else:
        # Made again from its own parts, so the rules of code agree with those of TOML.
        assert attrs.evolve(manifest) == manifest
        return
    assert faults
    assert all(fault.text for fault in faults)


@given(st.text())
def test_any_text_is_a_manifest_or_a_list_of_faults(text: str) -> None:
    """No file that somebody writes ends in a traceback."""
    read(text)


@given(st.lists(st.tuples(st.sampled_from(KEYS), TOML_VALUES), unique_by=lambda item: item[0]))
def test_any_values_are_a_manifest_or_a_list_of_faults(
    items: list[tuple[tuple[str, str], str]],
) -> None:
    """Whatever stands at whichever key, and however much of it at once."""
    lines = [f"{key} = {value}" for (table, key), value in items if not table]
    for table in ("[model]", "[resources]"):
        lines.append(table)
        lines += [f"{key} = {value}" for (at, key), value in items if at == table]
    # A table that is also a key is not TOML, and that is one fault as well.
    read("\n".join(lines))


@given(st.sampled_from(KEYS), st.sampled_from(list(TABLES)))
def test_no_key_is_ignored_anywhere(key: tuple[str, str], table: str) -> None:
    """A key of one table in another one is a fault that names the right place."""
    home, name = key
    here = [field.name for field in attrs.fields(TABLES[table])]
    assume(name not in here)
    with pytest.raises(ManifestError) as caught:
        AgentManifest.parse(f"{table}\n{name} = 1")
    (fault,) = caught.value.faults
    assert fault.path.split(".")[-1] == name
    place = home or "at the top of the file"
    if table == "[model]" and name in {"name", "model"}:
        place = "remote_model"  # what is meant there
    assert place in fault.text


@given(QUOTAS)
def test_every_quota_can_be_written_and_read_again(quota: ResourceQuota) -> None:
    """TOML says all that code can say."""
    values = attrs.asdict(quota).items()
    lines = [f"{key} = {value!r}" for key, value in values if value is not None]
    text = "\n".join(["[resources]", *lines])
    assert AgentManifest.parse(text).resources == quota


@given(st.integers(-5, 5000), st.integers(-5, 5000))
def test_an_answer_always_leaves_room_for_the_question(max_tokens: int, window: int) -> None:
    """A manifest whose window is all answer does not exist."""
    try:
        model = ModelConfig(max_tokens=max_tokens, context_window=window)
    except ManifestError:
        assert max_tokens <= 0 or window <= 0 or window <= max_tokens
    else:
        assert model.max_tokens is not None
        assert model.max_tokens < window


@given(
    st.sampled_from(PrivacyTier),
    st.sampled_from(["", "user@", "127.0.0.1:80@", "localhost@"]),
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "evil.example", "localhost.evil.example"]),
    st.sampled_from(["", ":8080", "/v1", "/@127.0.0.1", "?127.0.0.1", "#localhost"]),
)
def test_a_sovereign_manifest_never_names_another_machine(
    tier: PrivacyTier, login: str, host: str, rest: str
) -> None:
    """Whatever the address is dressed up as."""
    url = f"http://{login}{host}{rest}"
    here = not login and host in {"localhost", "127.0.0.1", "[::1]"}
    assert is_loopback_url(url) is here
    try:
        AgentManifest(privacy=tier, model=ModelConfig(remote_model="m", base_url=url))
    except ManifestError:
        assert login or not here
    else:
        assert not login
        assert here or tier is not PrivacyTier.SOVEREIGN
