"""Each rule of each strict fake, broken once on purpose in our code.

``python -m tests.mutation.refusals`` breaks a copy of the package so that it sends what the rule
refuses, runs the tests of that fake, and prints a table: which of them is red, and whether in
the rule's own words. It exits with 1 if one is not. Names of fakes may follow, for those alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from tests.mutation.mutant import ROOT
from tests.mutation.mutate import copy_package, pytest

TESTS: Final = "tests/drivers/test_strict.py"

TEST_SECONDS: Final = 1_800
"""For the tests of one fake. They take some ten seconds of a processor; on a busy machine much
longer, and what hangs is told apart from what is slow by the tests' own bounds."""

CHAT: Final = "drivers/wire/_chat_request.py"
RESPONSES: Final = "drivers/wire/_responses_request.py"
MESSAGES: Final = "drivers/wire/_messages_request.py"
IDS: Final = "drivers/wire/_call_ids.py"
THINKING: Final = "drivers/wire/_claude_thinking.py"
OPENAI: Final = "drivers/_openai.py"


@attrs.frozen
class Broken:
    """How our code breaks a rule."""

    rule: str
    says: str
    """What is in the words of the refusal."""
    room: str
    line: str
    """What stands there; once."""
    broken: str
    """What stands there instead."""


_EXTRA: Final = "extra = {key: one for key, one in options.extra.items() if key not in _MERGED}"
_STEP: Final = "while sent in self._used or not self._form.pattern.fullmatch(sent):"

UNIQUE_IDS: Final = Broken(
    "unique_ids", "must be unique", IDS,
    "        self._used.add(sent)\n        self._attempts[call_id] = attempt\n", "",
)  # fmt: skip
ID_FORM: Final = Broken("id_form", "tool call id was", IDS, _STEP, "while sent in self._used:")

EVERY_CHAT: Final = (
    UNIQUE_IDS,
    Broken("known_roles", "empty array", CHAT, "messages=messages,", "messages=[],"),
    Broken(
        "results_follow_calls", "was not called", CHAT,
        "tool_call_id=ids.of_result(call_id)", 'tool_call_id="x"',
    ),
    Broken(
        "system_first", "at the beginning", CHAT,
        "messages=messages,", "messages=[*messages[1:], messages[0]],",
    ),
)  # fmt: skip
LOCAL: Final = (
    *EVERY_CHAT,
    Broken(
        "content_key", "missing field 'content'", CHAT,
        "content: str | list[msgspec.Raw] | None = text if text or not calls else None",
        "content: str | list[msgspec.Raw] | None = text or msgspec.UNSET",
    ),
    Broken(
        "arguments_are_objects", "failed to parse tool call arguments", CHAT,
        "valid_arguments(call)))\n", "call.arguments))\n",
    ),
)  # fmt: skip
CHAT_NAMES: Final = Broken(
    "legal_names", "Invalid name of a tool", CHAT,
    "_Function(legal_name(call.name),", '_Function(f"{call.name}!",',
)  # fmt: skip
CHAT_IMAGES: Final = Broken(
    "images_of_users", "only allowed for messages with role", CHAT,
    "content: str | list[msgspec.Raw] | None = text if text or not calls else None",
    'content: list[msgspec.Raw] = [msgspec.Raw(b\'{"type":"image_url"}\')]',
)  # fmt: skip
NO_STREAM: Final = Broken(
    "no_stream_options", "Stream options can only be", CHAT, "stream=True,", "stream=False,",
)  # fmt: skip
CHAT_FORCED: Final = Broken(
    "no_forced_tools", "forces tool use", CHAT, "        options.extra,\n",
    '        {"tool_choice": "required"},\n',
)  # fmt: skip
CHAT_UNKNOWN: Final = Broken(
    "known_fields", "Extra inputs", CHAT,
    "cache_prompt=options.cache_prompt,", "cache_prompt=True,",
)  # fmt: skip
NO_IMAGES: Final = Broken(
    "no_images", "image_url", "drivers/_hosted.py",
    "        check_attachments(\n            request,\n            self.inputs,\n"
    "            most_image_bytes=self.most_image_bytes,\n"
    "            most_image_pixels=self.most_image_pixels,\n        )\n", "",
)  # fmt: skip

TABLE: Final[dict[str, tuple[Broken, ...]]] = {
    "openai": (
        Broken("known_fields", "Extra inputs", RESPONSES, _EXTRA, 'extra = {"seed": 1}'),
        Broken(
            "no_sampling", "'temperature' is not supported", RESPONSES,
            "temperature=request.temperature,", "temperature=0.3,",
        ),
        Broken("stateless", "store must be false", RESPONSES, "store=False,", "store=True,"),
        UNIQUE_IDS,
        ID_FORM,
        Broken(
            "reasoning_with_calls", "without its required 'reasoning' item", RESPONSES,
            "fresh = tuple(part for part in parts if part.data not in stale)", "fresh = ()",
        ),
        Broken(
            "encrypted_back", "invalid_encrypted_content", RESPONSES,
            "return msgspec.Raw(piece.data.encode())",
            'return msgspec.Raw(piece.data.replace("sig-", "gis-").encode())',
        ),
        Broken(
            "outputs_match", "No tool output found", RESPONSES,
            "yield _Result(ids.of_result(call_id),", 'yield _Result("x",',
        ),
        Broken(
            "strict_schemas", "Invalid schema for function", RESPONSES,
            'strict=is_strict_schema(cast("Json", schema))', "strict=True",
        ),
        Broken(
            "legal_names", "Invalid name of a tool", RESPONSES,
            "name = legal_name(piece.name)", 'name = f"{piece.name}!"',
        ),
        Broken("known_items", "must be provided", RESPONSES, "input=list(items),", "input=[],"),
    ),
    "openai-chat": (
        CHAT_UNKNOWN,
        Broken(
            "no_sampling", "'temperature' is not supported", CHAT,
            "temperature=request.temperature,", "temperature=0.3,",
        ),
        Broken(
            "newer_limit", "Use 'max_completion_tokens'", CHAT,
            "max_tokens=None if is_newer else request.max_tokens,", "max_tokens=9,",
        ),
        Broken(
            "no_effort_with_tools", "use /v1/responses", CHAT,
            "reasoning_effort=request.reasoning_effort,", 'reasoning_effort="low",',
        ),
        Broken(
            "strict_schemas", "Invalid schema for response_format",
            "drivers/wire/_answer_form.py",
            "if is_openai and is_strict_schema(schema):", "if is_openai:",
        ),
        *EVERY_CHAT,
        ID_FORM,
        CHAT_NAMES,
        CHAT_IMAGES,
        Broken(
            "no_stop", "'stop' is not supported", CHAT, "stop=request.stop,", 'stop=["x"],',
        ),
        NO_STREAM,
    ),
    "anthropic": (
        Broken(
            "has_version", "anthropic-version", "drivers/_anthropic.py",
            '{"anthropic-version": ANTHROPIC_VERSION, **(headers or {})}', "{**(headers or {})}",
        ),
        Broken(
            "has_limit", "max_tokens: Field required", MESSAGES,
            "max_tokens=limit,", "max_tokens=0,",
        ),
        Broken(
            "no_sampling", "'temperature' is not supported", MESSAGES,
            "temperature=None if temperature is None else min(temperature, MAX_TEMPERATURE),",
            "temperature=0.3,",
        ),
        Broken(
            "user_first", "non-whitespace text", MESSAGES,
            "_Text(piece) if piece.strip() else None", "_Text(piece)",
        ),
        UNIQUE_IDS,
        ID_FORM,
        Broken(
            "results_next", "without `tool_result` blocks", MESSAGES,
            "_ToolResult(ids.of_result(call_id),", '_ToolResult("x",',
        ),
        Broken(
            "thoughts_signed", "Invalid `signature`", "drivers/wire/_messages_answer.py",
            'value["signature"] = "".join(thought.signatures)', 'value["signature"] = "x"',
        ),
        Broken(
            "thoughts_first", "Expected `thinking`", MESSAGES,
            "parts = [one for one in origin.parts_of(message) if not _is_unsigned(one)]",
            "parts: list[ProviderPart] = []",
        ),
        Broken(
            "few_marks", "A maximum of 4 blocks", MESSAGES,
            "MARKED_TURNS: Final = 2\n", "MARKED_TURNS: Final = 9\n",
        ),
        Broken(
            "adaptive_alone", "thinking.type.enabled", THINKING,
            "    if effort is None:\n        return None\n",
            '    if effort is None:\n        return {"type": "enabled", "budget_tokens": 1024}\n',
        ),
        Broken(
            "adaptive_alone", "adaptive thinking is not supported", THINKING,
            "if not _wants_budget(model):\n        return {", "if True:\n        return {",
        ),
        Broken(
            "no_forced_tools", "forces tool use", MESSAGES, _EXTRA,
            'extra = {"tool_choice": {"type": "any"}}',
        ),
        Broken(
            "legal_keys", "Property keys should match", MESSAGES,
            "map(with_legal_keys, request.tools)", "request.tools",
        ),
        Broken("known_fields", "Extra inputs", MESSAGES, _EXTRA, 'extra = {"seed": 1}'),
        Broken(
            "user_last", "does not support assistant message prefill", MESSAGES,
            "    return sent\n", '    return [*sent, _Message("assistant", [_Text("{")])]\n',
        ),
        Broken(
            "legal_names", "Invalid name of a tool", MESSAGES,
            "legal_name(piece.name), arguments)", 'f"{piece.name}!", arguments)',
        ),
        Broken(
            "unique_tools", "Tool names must be unique", MESSAGES,
            "map(with_legal_keys, request.tools)", "map(with_legal_keys, request.tools * 2)",
        ),
        Broken(
            "known_blocks", "Input should be 'user' or 'assistant'", MESSAGES,
            "    return sent\n", '    return [*sent[:-1], _Message("critic", sent[-1].content)]\n',
        ),
    ),
    "gemini": (
        *EVERY_CHAT,
        Broken(
            "signatures_back", "missing a thought_signature", CHAT,
            'elif part.kind == "call.extra_content" and', 'elif part.kind == "x" and',
        ),
        Broken(
            "no_older_form_with_tools", "with a response mime type", OPENAI,
            'rules == "groq" or is_older_gemini', 'rules == "groq"',
        ),
    ),
    "groq": (
        *EVERY_CHAT,
        Broken(
            "no_form_with_tools", "json mode cannot be combined", OPENAI,
            'rules == "groq" or is_older_gemini', "is_older_gemini",
        ),
        Broken(
            "known_message_fields", "reasoning_content: Extra inputs", CHAT,
            "fields.setdefault(part.kind, [])", 'fields.setdefault("reasoning_content", [])',
        ),
        CHAT_NAMES,
    ),
    "deepseek": (
        *EVERY_CHAT,
        Broken(
            "reasoning_back", "must be passed back", CHAT,
            '{"reasoning_content", "reasoning",', '{"reasoning",',
        ),
        Broken(
            "no_schemas", "unavailable now", OPENAI,
            'has_schemas=rules != "deepseek",', "has_schemas=True,",
        ),
        NO_IMAGES,
        CHAT_FORCED,
        CHAT_NAMES,
    ),
    "mistral": (
        CHAT_UNKNOWN,
        Broken(
            "known_message_fields", "reasoning_content: Extra inputs",
            "drivers/wire/_chat_answer.py",
            'self._grow_thought("content", thought)',
            'self._grow_thought("reasoning_content", thought)',
        ),
        Broken(
            "no_user_after_tool", "Unexpected role 'user'", OPENAI,
            'needs_answers=rules == "mistral",', "needs_answers=False,",
        ),
        Broken(
            "no_empty_answer", "but not none", CHAT,
            '_BRIDGE: Final = _Message("assistant", "Ok.")',
            '_BRIDGE: Final = _Message("assistant", "")',
        ),
        *EVERY_CHAT,
        ID_FORM,
        CHAT_NAMES,
        CHAT_IMAGES,
        Broken(
            "answer_not_last", "Expected last role User", CHAT,
            "messages=messages,", 'messages=[*messages, _Message("assistant", "x")],',
        ),
    ),
    "moonshot": (
        *EVERY_CHAT,
        Broken(
            "no_sampling", "'temperature' is not supported", CHAT,
            "temperature=request.temperature,", "temperature=0.6,",
        ),
        Broken(
            "reasoning_beside_calls", "missing in assistant tool call", CHAT,
            '{"reasoning_content", "reasoning",', '{"reasoning",',
        ),
        Broken(
            "reasoning_beside_calls", "missing in assistant tool call", OPENAI,
            '"moonshot": " "', '"moonshot": ""',
        ),
        Broken(
            "no_empty_answer", "but not none", CHAT,
            "text if text or not calls else None", '"" if not calls else None',
        ),
        CHAT_FORCED,
        CHAT_NAMES,
    ),
    "vllm": (*LOCAL, NO_STREAM),
    "ollama": LOCAL,
    # Nothing is known of the inputs of a server of one's own, so an image is sent to llama.cpp
    # and refused there, in its own words: no_images cannot be broken here.
    "llamacpp": LOCAL,
}  # fmt: skip
"""Each fake with how each of its rules is broken."""


def faults(names: list[str]) -> Iterator[tuple[str, Broken]]:
    """Yield what to try, fake by fake."""
    for name, rules in TABLE.items():
        if not names or name in names:
            yield from ((name, broken) for broken in rules)


_MORE_TESTS: Final[dict[str, tuple[str, ...]]] = {
    "openai-chat": ("test_a_fake_answers_as_the_model_that_was_asked_for[openai-chat]",),
    "anthropic": (
        "test_arguments_may_have_any_name[anthropic]",
        "test_an_effort_is_a_budget_at_an_older_claude",
    ),
    "gemini": ("test_an_older_gemini_is_told_the_form_beside_tools",),
    "deepseek": ("test_an_image_is_not_sent_to_a_model_without_eyes",),
}
"""Of the fakes with rules about what a loop of plain tools never sends."""


def tests_of(name: str) -> list[str]:
    """Return the tests that speak with the fake *name*."""
    asked = (f"test_a_loop_of_tools_gets_through[{name}-4]", f"test_a_session_goes_on_at[{name}]")
    return [f"{TESTS}::{one}" for one in (*asked, *_MORE_TESTS.get(name, ()))]


def is_red(name: str, broken: Broken, folder: Path) -> bool:
    """Return whether the fake *name* refuses what the broken copy sends, in the rule's words."""
    # The fake is to refuse it, and not the types of the official clients.
    env = {**copy_package(folder), "AGENTPOOL_TESTS_BREAK_REQUESTS": "1"}
    path = folder / "agentpool" / broken.room
    path.write_text(path.read_text().replace(broken.line, broken.broken))
    done = subprocess.run(
        pytest("-m", "pytest", *tests_of(name)),
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=TEST_SECONDS, check=False,
    )  # fmt: skip
    return done.returncode == 1 and broken.says in done.stdout


def main() -> None:
    """Break each rule, and print the table."""
    green = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, broken in faults(sys.argv[1:]):
            try:
                red = is_red(name, broken, Path(folder))
            except subprocess.TimeoutExpired:
                sys.exit(
                    f"{name}, {broken.rule}: its tests took more than {TEST_SECONDS} seconds, so "
                    f"the table ends here; run {name!r} alone on a machine that does less"
                )
            green += not red
            row = f"{name:12} {broken.rule:22} {broken.room:36} {'red' if red else 'GREEN'}"
            print(row, flush=True)  # noqa: T201  # what it is for
    sys.exit(1 if green else 0)


if __name__ == "__main__":
    main()
