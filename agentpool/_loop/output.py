"""Typed answers: checks a text against the type, and tells the model what is wrong.

Rules:

1. The answer is the first one without tool calls. Before it, tools run as in any run.
2. It fits if it has one JSON object of the schema. Text around the object is ignored: a code fence,
   a sentence, an end token. Two different objects are not an answer.
3. If an answer does not fit, the model is told what is wrong and asked again, at most
   ``MAX_REPAIRS`` times in a run. For the guard, each is a turn like any other.
4. An answer that was cut off does not fit. It is not continued, since models then begin a new
   object.
5. If no repair succeeds, the run fails. An answer that does not fit never becomes a value.

The caller passes the function that parses a text as a type: this module does not know types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

import msgspec

from agentpool._messages import AnswerForm

MAX_REPAIRS: Final = 2
"""A model that has not fixed its answer in two repairs is unlikely to fix it in a third."""

CUT_OFF: Final = "it was cut off at max_tokens; write less"


@final
class Misfit(msgspec.Struct, frozen=True, gc=False):
    """Why a text does not fit the type."""

    text: str
    """The problem, described for the model."""


Reader: TypeAlias = Callable[[str], object]
"""Returns the value that a text represents, or a `Misfit`."""


@final
class Output(msgspec.Struct, frozen=True, eq=False):
    """The required type of an answer."""

    form: AnswerForm
    """The schema, for the provider."""
    read: Reader
    """Parses an answer."""
    schema_text: str
    """The form's schema as JSON, for the model."""

    def repair(self, fault: str) -> str:
        """Return the request to a model whose answer did not fit."""
        return (
            f"That is not the form that the answer must have:\n{fault}\n"
            f"Answer again, with JSON of this schema and nothing else:\n{self.schema_text}"
        )
