"""How a model sees an MCP server's tools, and how results are converted.

Everything that a server sends is untrusted text. Rules:

1. The name under which a tool is sent to providers says which server it comes from, is valid
   everywhere, and is unique: ``a_b`` + ``c`` and ``a`` + ``b_c`` differ, and no server can choose a
   name that looks like another server's.
2. A tool is offered if the manifest's entry for the server lists it. As with every tool, the
   agent's grants decide whether the agent may run it.
3. Descriptions are one short line without invisible characters. A tool is left out if the names or
   values of its arguments have such characters, since the server needs these names and values
   unchanged. A schema that is too large is not shown. Only the server checks arguments against its
   schemas: a pattern in a schema can be made to take forever.
4. A result is text, plus the images and documents that models can read. Everything else in it is
   described, not dumped, and no result is longer than a model can use.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias, cast

import msgspec

from agentpool._attachments import MAX_ATTACHMENT_BYTES, Attachment
from agentpool._chat_markers import Cleaner
from agentpool._errors import ToolError, UsageError
from agentpool._manifest.capability import ANYTHING, Capability, CapabilityKind, grants_allow
from agentpool._manifest.parts import McpServerConfig
from agentpool._messages import Json
from agentpool._one_line import is_unseen
from agentpool._surrogates import escapes_without_halves
from agentpool.abc import ToolResult
from agentpool.tools._arguments import MAX_ARGUMENTS_CHARS, is_nothing, listed, read_keys
from agentpool.tools._common_schema import common_schema
from agentpool.tools._failure import clip

_CLEANER: Final = Cleaner()

MAX_NAME_CHARS: Final = 64
"""The longest name: OpenAI's and Anthropic's limit."""

MAX_DESCRIPTION_CHARS: Final = 1_000
"""The most characters of a tool's description. The longest one of the reference servers has 600."""

MAX_HINT_CHARS: Final = 500
"""The most characters of a description inside a schema."""

MAX_SCHEMA_BYTES: Final = 20_000
"""The most bytes of a schema: some 8,000 tokens, which are sent with every request. The largest
schema of the reference servers has 2,000 bytes."""

MAX_SCHEMA_DEPTH: Final = 32
"""The most levels of a schema. People write schemas with fewer levels, and the limit bounds the
recursion."""

MAX_RESULT_CHARS: Final = 30_000
"""The most characters of a result: about 8,000 tokens, so that several fit into a usual window."""

MAX_RESULT_ATTACHMENTS: Final = 8
"""The most images and documents of one result. Each of them takes thousands of tokens."""

MAX_ATTACHMENT_CHARS: Final = MAX_ATTACHMENT_BYTES * 4 // 3 + 4
"""The longest base64 text that is made into an attachment."""

EMPTY_RESULT: Final = "ok"
"""Replaces an empty result, since some providers refuse a result without text."""

ToolKey: TypeAlias = tuple[str, str]
"""The name of a server and the name of one of its tools, both unchanged."""

_HASH_CHARS: Final = 8
_HASHED = re.compile(rf".*_[0-9a-f]{{{_HASH_CHARS}}}", re.DOTALL)
_COLOURED = re.compile("(?<=[\u203c-\u3299\U0001f000-\U0001faff])\ufe0f")
"""The character that makes the symbol before it coloured, as in many enumerations. It does not
change the meaning."""
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]+")

_Node: TypeAlias = Mapping[str, object]
_SPOKEN: Final = frozenset({"description", "title", "$comment"})
"""The keys of a schema whose values are text for a reader."""


# --- names


def tool_names(keys: Iterable[ToolKey]) -> dict[ToolKey, str]:
    """Return a valid and unique name for each tool.

    A name depends only on its own server and tool, unless the names of two servers differ only in
    ``-`` and ``_``.

    >>> list(tool_names([("a_b", "c"), ("a", "b_c")]).values())
    ['mcp_a-b_c', 'mcp_a_b_c']
    """
    keys = tuple(dict.fromkeys(keys))
    plain = {key: _plain_name(*key) for key in keys}
    taken = Counter(plain.values())
    return {
        key: name if name is not None and taken[name] == 1 else _hashed_name(*key)
        for key, name in plain.items()
    }


def _plain_name(server: str, tool: str) -> str | None:
    """Return the name without a hash.

    ``None``: such a name would be invalid, or might not be unique.
    """
    # Without "_" in the server's part, the first one after "mcp_" ends it.
    name = f"mcp_{server.replace('_', '-')}_{tool}"
    legal = len(name) <= MAX_NAME_CHARS and tool and not _ILLEGAL.search(name)
    # A tool may be called as another one's name with its hash would be.
    return name if legal and not _HASHED.fullmatch(name) else None


def _hashed_name(server: str, tool: str) -> str:
    # A lone surrogate is not text, but a server may send one.
    data = f"{server}\0{tool}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(data).hexdigest()[:_HASH_CHARS]
    name = _ILLEGAL.sub("_", f"mcp_{server}_{tool}")
    return f"{name[: MAX_NAME_CHARS - 1 - _HASH_CHARS]}_{digest}"


# --- what is offered


def wants_server(server: McpServerConfig, grants: Sequence[Capability]) -> bool:
    """Return whether *grants* allow any tool of *server*."""
    names = server.capabilities
    if ANYTHING not in names:
        return any(grants_allow(grants, Capability.mcp(server.name, name)) for name in names)
    return any(
        grant.kind is CapabilityKind.MCP
        and all(grant.scope)
        and grant.scope[:1] in {(ANYTHING,), (server.name,)}
        for grant in grants
    )


def offered_tools(
    server: McpServerConfig, listed: Iterable[str], faults: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the *listed* tools that the manifest's entry for *server* offers.

    Args:
        server: The manifest's entry.
        listed: The tools of the server.
        faults: The faults of the tools that the server describes badly, by the tools' names.

    Raises:
        ToolError: If the entry names a tool that the server does not have, or describes badly.
    """
    there = tuple(listed)
    if ANYTHING in server.capabilities:
        return there
    missing = [name for name in server.capabilities if name not in there]
    faulty = [name for name in missing if name in faults]
    if faulty:
        raise ToolError(
            f"the MCP server {server.name!r} describes its tool {faulty[0]!r} badly, so the tool "
            f"cannot be offered: {faults[faulty[0]]}; take it out of 'capabilities' in the "
            "manifest"
        )
    if missing:
        words = ", ".join(map(repr, missing))
        has = ", ".join(map(repr, there)) or "none"
        raise ToolError(
            f"the MCP server {server.name!r} has no tool {words}; correct its 'capabilities' "
            f"in the manifest; it has {clip(has, MAX_DESCRIPTION_CHARS)}"
        )
    return tuple(name for name in there if name in server.capabilities)


# --- what is said of a tool


def shown_description(server: str, text: str | None) -> str:
    """Return a server's description of a tool, cleaned for the model."""
    return f"[MCP:{server}] {one_line(text or '', MAX_DESCRIPTION_CHARS)}".rstrip()


def shown_schema(schema: Mapping[str, object]) -> dict[str, object]:
    """Return a server's schema of a tool, cleaned for the model."""
    open_ended: dict[str, object] = {"type": "object", "properties": {}}
    try:
        cleaned = _cleaned(schema, MAX_SCHEMA_DEPTH)
        if len(msgspec.json.encode(cleaned)) > MAX_SCHEMA_BYTES:
            return open_ended
        shown = common_schema(cast("dict[str, object]", cleaned))
        is_large = len(msgspec.json.encode(shown)) > MAX_SCHEMA_BYTES
    except (RecursionError, TypeError, ValueError, UsageError):
        return open_ended
    return open_ended if is_large else dict(shown)


def _cleaned(node: object, depth: int) -> object:
    if depth == 0:
        raise RecursionError
    if isinstance(node, Mapping):
        cleaned: dict[str, object] = {}
        for key, value in cast("_Node", node).items():
            if key in _SPOKEN and isinstance(value, str):
                cleaned[key] = one_line(value, MAX_HINT_CHARS)
            elif key == "$ref" and not str(value).startswith("#"):
                continue  # a schema elsewhere is never fetched
            else:
                cleaned[key] = _cleaned(value, depth - 1)
        return cleaned
    if isinstance(node, list):
        return [_cleaned(one, depth - 1) for one in cast("list[object]", node)]
    return node


def hidden_sign(shown: Mapping[str, object]) -> str:
    """Return an invisible character in a name or a value of a shown schema.

    Empty: no such character.

    Blanks, line ends and the character that colours a symbol do not count.
    """
    todo: list[object] = [shown]  # references written out may be nested deeper than calls
    while todo:
        node = todo.pop()
        if isinstance(node, Mapping):
            todo.extend(cast("_Node", node).keys())
            todo.extend(cast("_Node", node).values())
        elif isinstance(node, list):
            todo.extend(cast("list[object]", node))
        elif isinstance(node, str) and not (node.isascii() and node.isprintable()):
            for sign in set(_COLOURED.sub("", node)):
                if is_unseen(sign) and sign not in "\n\r\t" and unicodedata.category(sign) != "Zs":
                    return sign
    return ""


def one_line(text: str, limit: int) -> str:
    """Return *text* on one line, shortened, without invisible characters and markers.

    This is used for the texts that a model reads about a server before any call: a description is
    as untrusted as a result.
    """
    # Cut twice: a text of megabytes is not looked through for what is thrown away.
    rough = clip(text, 4 * limit)
    seen = "".join(" " if is_unseen(sign) else sign for sign in rough)
    return clip(_CLEANER.clean(" ".join(seen.split())), limit)


# --- arguments and results


def read_arguments(text: str) -> dict[str, Json]:
    """Parse the arguments that a model wrote. The server checks whether they fit the tool.

    Raises:
        ToolError: If the arguments are not a JSON object. The error's text is for the model.
    """
    if len(text) > MAX_ARGUMENTS_CHARS:
        raise ToolError(
            f"the arguments are {len(text)} characters long, and no more than "
            f"{MAX_ARGUMENTS_CHARS} are taken; send less at once"
        )
    if is_nothing(text):
        return {}
    try:
        text = escapes_without_halves(text)
        arguments: object = msgspec.json.decode(text)
        _, repeated = read_keys(text)
    except (ValueError, RecursionError) as exc:
        raise ToolError(
            f"invalid arguments, nothing was run: {exc}; expected: a JSON object"
        ) from exc
    if not isinstance(arguments, dict):
        kind = type(arguments).__name__
        raise ToolError(f"invalid arguments, nothing was run: expected a JSON object, got {kind}")
    if repeated:
        raise ToolError(f"invalid arguments, nothing was run:\n{listed(repeated)}")
    return cast("dict[str, Json]", arguments)


def read_result(result: _Node) -> ToolResult:
    """Convert a server's result from the wire for the model."""
    content = cast("Sequence[_Node]", result.get("content") or ())
    attached: list[Attachment] = []
    parts = [_told(block, attached) for block in content]
    structured = result.get("structuredContent")
    if structured is not None and not any(block.get("type") == "text" for block in content):
        parts.append(msgspec.json.encode(structured).decode())
    failed = result.get("isError") is True
    nothing = "the tool failed and did not say why" if failed else EMPTY_RESULT
    text = clip("\n".join(part for part in parts if part), MAX_RESULT_CHARS)
    return ToolResult(text or nothing, is_error=failed, attachments=tuple(attached))


def _told(block: _Node, attached: list[Attachment]) -> str:
    """Return the text of one block of a result, or a note of its kind.

    Images and documents that models can read are added to *attached*.
    """
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image" | "audio" as kind, "data": str(data)}:
            return f"[{kind} {_kind(block)}, {_size(data)}{_attach(block, data, attached)}]"
        case {"type": "resource_link", "uri": uri}:
            return f"[resource {one_line(str(uri), MAX_HINT_CHARS)}, {_kind(block)}]"
        case {"type": "resource", "resource": {"text": str(text)}}:
            return text
        case {"type": "resource", "resource": {"blob": str(data)} as inner}:
            inner = cast("_Node", inner)
            uri = one_line(str(inner.get("uri")), MAX_HINT_CHARS)
            shown = _attach(inner, data, attached)
            return f"[resource {uri}, {_kind(inner)}, {_size(data)}{shown}]"
        case _:
            return f"[{one_line(str(block.get('type')), MAX_HINT_CHARS)}, not shown]"


def _attach(block: _Node, data: str, attached: list[Attachment]) -> str:
    """Attach the data of *block* if a model may read it. Return a note if not."""
    if len(attached) < MAX_RESULT_ATTACHMENTS and len(data) <= MAX_ATTACHMENT_CHARS:
        try:
            attached.append(
                Attachment(str(block.get("mimeType")), base64.b64decode(data, validate=True))
            )
        except (ValueError, UsageError):  # no base64, or nothing that models read
            return ", not shown"
        return ""
    return ", not shown"


def _kind(block: _Node) -> str:
    return one_line(str(block.get("mimeType") or "of an unknown type"), MAX_HINT_CHARS)


def _size(base64: str) -> str:
    return f"{len(base64) * 3 // 4 - base64[-2:].count('='):,} bytes"
