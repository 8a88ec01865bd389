"""Typed answers: checks a text against the type, and tells the model what is wrong.

Rules:

1. The answer is the first one without tool calls. Tools run as ever before it.
2. It fits if it has one JSON object of the schema. What stands around that is forgiven: a
   code fence, a sentence, an end token. Two that differ are not an answer.
3. One that does not fit is told what is wrong with it, and is asked for again, at most
   ``MAX_REPAIRS`` times in a run. Each is a turn like any other to the guard.
4. One that was cut off does not fit: the next piece of a form would begin a new one.
5. When that was of no use, the run fails. No value ever comes of an answer that does not fit.

How a text is read as a type is handed in from above: here nothing knows of types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

import msgspec

from agentpool._messages import AnswerForm

MAX_REPAIRS: Final = 2
"""After two repairs, a model is unlikely to fix its answer in a third."""

CUT_OFF: Final = "it was cut off at max_tokens; write less"


@final
class Misfit(msgspec.Struct, frozen=True, gc=False):
    """Why a text does not fit the type."""

    text: str
    """The problem, described for the model."""


Reader: TypeAlias = Callable[[str], object]
"""Returns the value that a text stands for, or a `Misfit`."""


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
