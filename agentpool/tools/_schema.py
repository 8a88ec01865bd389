"""Converts a Python signature into JSON Schema, so that a model can call the function.

Rules:

1. Every parameter is shown, with its type, its default and its line of the docstring. A parameter
   annotated ``ToolContext`` is not shown; the agent fills it in.
2. A function that cannot be shown faithfully is refused when the tool is made, never later. The
   reasons are a missing annotation, ``*args``, a type without a JSON form, or a constraint in
   ``Annotated`` that would be silently ignored.
3. Every object, nested ones too, is closed (``additionalProperties`` false), and the schema is
   enforced: the model gets an error for a misspelt key at any depth.
4. Definitions are written out where they are used, because several providers and small local models
   do not follow ``$ref``. Only a type that contains itself stays a reference, and only in the
   schema that checks; the shown schema comes from ``_common_schema``.

The shown schema is for the ordinary mode of providers. OpenAI's ``strict`` mode asks for more:
every property is required, and an optional one may be ``null``. A driver that wants this mode has
to make these changes itself, since defaults are better for all other providers.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import CodeType, FunctionType, MethodType
from typing import Final, TypeAlias, cast, final

import attrs
import docstring_parser
import msgspec

from agentpool._checks import has_fields
from agentpool._errors import UsageError
from agentpool._messages import Json
from agentpool.abc import ToolContext
from agentpool.tools._common_schema import common_schema

Schema: TypeAlias = dict[str, Json]
"""A JSON Schema under construction."""

AnyFunction: TypeAlias = Callable[..., object]
"""A function that becomes a tool. Only its signature matters here."""

_SIMPLE = (type(None), bool, int, float, str)
"""Types of defaults that msgspec keeps unchanged; all other defaults come from a factory."""

_FLAWS: Final[Mapping[object, str]] = {
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments",
    inspect.Parameter.VAR_KEYWORD: "takes any number of arguments",
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only",
}


@final
@attrs.frozen(eq=False)
class Signature:
    """A function's parameters: their schema for the model, and their check."""

    description: str
    """The first paragraph of the docstring, on one line."""
    input_schema: Mapping[str, Json]
    """The JSON Schema of the arguments as every provider takes it; its type is ``object``."""
    checked_schema: Mapping[str, Json]
    """The JSON Schema with everything that the types say, for checking a call."""
    arguments_type: type[msgspec.Struct]
    """A struct with a field for each parameter that the model fills in."""
    context_parameter: str | None
    """The parameter that gets the ``ToolContext``. ``None``: the function has no such parameter."""
    is_flat: bool
    """Whether no argument has fields of its own, so that the decoder checks every key."""


def build_signature(function: AnyFunction) -> Signature:
    """Read the signature of *function*.

    The signature of a method is read once per class, not once per object, and that of a function
    with plain parameters once, however often it is made. So a tool builder that makes either anew
    for every agent costs little.

    Raises:
        UsageError: If *function* cannot be a tool. The error says why, and what to do.
    """
    if isinstance(function, MethodType):
        return _build_of_method(function.__func__)
    if not inspect.isfunction(function):
        raise UsageError(
            f"a tool must be a function or a method of an object, got {function!r}; "
            "write a function that calls it"
        )
    return _build(function, skip=0) if (key := _key_of(function)) is None else _known(key, function)


# They remember what a pure function gave. A function that a builder makes anew for every agent
# would be kept here with all that it has closed over, so of it only the code is.
@lru_cache(maxsize=256)
def _build_of_method(function: FunctionType) -> Signature:
    return _build(function, skip=1)


_KNOWN: Final = dict[tuple[object, ...], tuple[CodeType, Signature]]()
_MOST_KNOWN: Final = 256
_PLAIN: Final = frozenset({bool, int, float, str})
"""The annotations that say the same wherever they are read."""


def _key_of(function: FunctionType) -> tuple[object, ...] | None:
    """Return all that the signature of *function* depends on. ``None``: it is not that simple."""
    if function.__dict__:
        return None  # such as a function that wraps another one
    hints = read_hints(function, f"the annotations of {function.__name__}")
    hints.pop("return", None)
    defaults, others = function.__defaults__ or (), function.__kwdefaults__ or {}
    types = (*map(type, defaults), *map(type, others.values()))
    # To be looked up in a set, it must be a class, which can be hashed.
    is_plain = all(
        hint is ToolContext or (type(hint) is type and hint in _PLAIN) for hint in hints.values()
    )
    if not is_plain or not all(one in _SIMPLE for one in types):
        return None
    # The code by its identity: to hash it takes longer than to read the signature.
    says = id(function.__code__), function.__name__, function.__doc__
    signs = tuple(str(one) for one in (*defaults, *others.values()) if type(one) is float)
    return *says, tuple(hints.items()), defaults, tuple(others.items()), types, signs


def _known(key: tuple[object, ...], function: FunctionType) -> Signature:
    if (known := _KNOWN.get(key)) is not None:
        return known[1]
    signature = _build(function, skip=0)
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    _KNOWN[key] = function.__code__, signature  # kept, so that no other code has its identity
    return signature


def _build(function: FunctionType, *, skip: int) -> Signature:
    name = function.__name__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"{name} is a generator; a tool returns once, so collect what it yields and return that"
        )
    described = _read_docstring(function)
    hints = read_hints(function, f"the annotations of {name}")
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    _refuse_misspelt(name, described, [one.name for one in parameters])
    context_parameter: str | None = None
    fields: list[tuple[str, object, object]] = []
    seen: set[object] = set()
    for parameter in parameters:
        where = f"parameter {parameter.name!r} of {name}"
        flaw = _FLAWS.get(parameter.kind)
        if flaw is not None:
            raise UsageError(
                f"{where} {flaw}; a model passes arguments by name: name each parameter"
            )
        if parameter.name not in hints:
            raise UsageError(
                f"{where} has no annotation; say which type it takes, or, if it is a method's "
                "self, write tool(an_object.method)"
            )
        hint = hints[parameter.name]
        if hint is ToolContext:
            if context_parameter is not None:
                raise UsageError(f"{where} is a second ToolContext; remove it")
            context_parameter = parameter.name
            continue
        refuse_ignored(hint, where, seen)
        fields.append((parameter.name, hint, _field(parameter.default)))
    arguments_type, schema = _build_schema(name, fields)
    properties = cast("dict[str, Schema]", schema["properties"])
    for parameter in parameters:
        shown = properties.get(parameter.name)
        if shown is not None:
            _describe(shown, parameter, described.get(parameter.name))
    is_flat = not seen
    return Signature(
        description=described[""],
        input_schema=common_schema(schema),
        checked_schema=schema,
        arguments_type=arguments_type,
        context_parameter=context_parameter,
        is_flat=is_flat,
    )


def _read_docstring(function: AnyFunction) -> Mapping[str, str]:
    """Return the description of each parameter, and the summary under the empty name."""
    text = inspect.getdoc(function)
    if not text or not text.strip():
        raise UsageError(
            f"{function.__name__} has no docstring; its first paragraph is what tells "
            "the model when to call it"
        )
    described = _parse_docstring(text)
    if not described[""]:
        raise UsageError(
            f"the docstring of {function.__name__} says nothing before its sections; "
            "begin it with what the tool does"
        )
    return described


# A builder makes the same function anew for each agent: of it, only the text is kept here.
@lru_cache(maxsize=256)
def _parse_docstring(text: str) -> Mapping[str, str]:
    parsed = docstring_parser.parse(text)
    texts = {
        parameter.arg_name: " ".join(parameter.description.split())
        for parameter in parsed.params
        if parameter.description
    }
    summary = (parsed.description or "").split("\n\n")[0]
    return texts | {"": " ".join(summary.split())}


def _refuse_misspelt(name: str, described: Mapping[str, str], parameters: list[str]) -> None:
    """Raise if the docstring of *name* misspells the name of a parameter."""
    missing = [one for one in parameters if one not in described]
    for text in [one for one in described if one and one not in parameters]:
        for near in difflib.get_close_matches(text, missing, n=1):
            raise UsageError(
                f"the docstring of {name} describes {text!r}, which is not a parameter; "
                f"did you mean {near!r}?"
            )


def read_hints(thing: AnyFunction | type, what: str) -> dict[str, object]:
    """Return the annotations of *thing* as types.

    Raises:
        UsageError: If an annotation cannot be read. *what* names the thing in the error.
    """
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as exc:
        raise UsageError(
            f"{what} cannot be read: {exc}; a tool's types must exist when it is made: "
            "import them outside `if TYPE_CHECKING`, define them outside functions"
        ) from exc


def refuse_ignored(hint: object, where: str, seen: set[object]) -> None:
    """Raise if *hint* contains something that msgspec would ignore silently.

    Classes with fields, and named types, are added to *seen*.
    """
    for extra in cast("tuple[object, ...]", getattr(hint, "__metadata__", ())):
        if not isinstance(extra, msgspec.Meta):
            raise UsageError(
                f"{where} has {extra!r} in Annotated, which would be ignored; "
                "write constraints as msgspec.Meta(ge=1), and texts in the docstring"
            )
    kind = typing.get_origin(hint) or hint
    if isinstance(kind, type) and has_fields(kind) and kind not in seen:
        seen.add(kind)
        for name, inner in read_hints(kind, f"the fields of {kind.__name__}").items():
            refuse_ignored(inner, f"{where}, field {name!r} of {kind.__name__},", seen)
    for inner in typing.get_args(hint):
        refuse_ignored(inner, where, seen)
    # What stands behind a NewType, and behind `type X = ...` of Python 3.12.
    for behind in ("__supertype__", "__value__"):
        if hasattr(hint, behind) and hint not in seen:
            seen.add(hint)
            refuse_ignored(getattr(hint, behind), where, seen)


def _field(default: object) -> object:
    if default is inspect.Parameter.empty:
        return msgspec.NODEFAULT
    if type(default) in _SIMPLE:
        return default
    # The very object of the signature, as when Python itself fills it in.
    return msgspec.field(default_factory=lambda: default)


def _build_schema(
    name: str, fields: list[tuple[str, object, object]]
) -> tuple[type[msgspec.Struct], Schema]:
    typed = [
        (field, hint) if default is msgspec.NODEFAULT else (field, hint, default)
        for field, hint, default in fields
    ]
    try:
        struct = msgspec.defstruct(
            name,
            cast("list[tuple[str, type, object]]", typed),
            forbid_unknown_fields=True,
            kw_only=True,
        )
        raw = msgspec.json.schema(struct)
        # Some types have a schema and no decoder, or the other way round.
        msgspec.json.Decoder(struct)
    except (TypeError, NameError, AttributeError) as exc:
        detail = str(exc).splitlines()[-1]  # the lines above it are about msgspec hooks
        raise UsageError(
            f"{name} takes a type that cannot be read from JSON: {detail}; use JSON's own "
            "types, enums, attrs classes, dataclasses, TypedDicts or msgspec structs"
        ) from exc
    return struct, written_out(cast("Schema", raw))


def _describe(shown: Schema, parameter: inspect.Parameter, description: str | None) -> None:
    # msgspec has written the simple ones.
    if parameter.default is not inspect.Parameter.empty and (
        type(parameter.default) not in _SIMPLE
    ):
        # A marker object that only the function understands is not to be shown, and the
        # parameter is optional all the same.
        with contextlib.suppress(TypeError):
            text = msgspec.json.encode(parameter.default, order="deterministic")
            shown["default"] = cast("Json", msgspec.json.decode(text))
    # The parameter's own line says more than the docstring of its class.
    if description is not None:
        shown["description"] = description


# --- schemas without references


def written_out(raw: Schema) -> Schema:
    """Rewrite *raw* by rules 3 and 4."""
    definitions = cast("dict[str, Schema]", raw.pop("$defs", {}))
    kept: dict[str, Schema] = {}
    schema = _inlined(raw, definitions, (), kept)
    schema.pop("title", None)
    schema.setdefault("properties", {})
    if kept:
        schema["$defs"] = cast("Json", kept)
    return schema


def _inlined(
    node: Schema, definitions: dict[str, Schema], inside: tuple[str, ...], kept: dict[str, Schema]
) -> Schema:
    """Return *node* with references replaced by their targets.

    *inside* are the definitions that are being written out. A reference to one of these is left as
    it is, and the definition is added to *kept*.
    """
    reference = node.get("$ref")
    if isinstance(reference, str):
        name = reference.removeprefix("#/$defs/")
        rest = {key: value for key, value in node.items() if key != "$ref"}
        if name in inside or name in kept:
            kept.setdefault(name, {})
            return {"$ref": reference, **rest}
        written = _inlined(definitions[name], definitions, (*inside, name), kept)
        if name in kept:
            kept[name] = written
            return {"$ref": reference, **rest}
        # The name of a Python class tells a model nothing that its fields do not.
        written.pop("title", None)
        return {**written, **rest}
    out: Schema = {}
    for key, value in node.items():
        if key in {"items", "additionalProperties"} and isinstance(value, dict):
            out[key] = _inlined(value, definitions, inside, kept)
        elif key in {"anyOf", "prefixItems"}:
            branches = cast("list[Schema]", value)
            out[key] = [_inlined(one, definitions, inside, kept) for one in branches]
        elif key == "properties":
            named = cast("dict[str, Schema]", value)
            out[key] = {
                field: _inlined(one, definitions, inside, kept) for field, one in named.items()
            }
        elif not _is_left_out(key, value):
            out[key] = value
    if "properties" in out:
        out.setdefault("additionalProperties", False)
    return out


def _is_left_out(key: str, value: Json) -> bool:
    # The mapping of a tagged union points to definitions that are gone; the tags stay.
    if key == "discriminator":
        return True
    # JSON has no infinity; the parameter is optional all the same.
    return key == "default" and isinstance(value, float) and not math.isfinite(value)
