"""Verifier `json_schema`: the text is JSON and satisfies a schema (draft 2020-12)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.base import Sample, Task, Verdict, VerifierError, VerifierSetupError
from samplewise.verifiers.schema_check import Document, Result, SchemaChecker, compile_schema
from samplewise.verifiers.verdicts import failed, passed, undecided

__all__ = ["JsonSchema"]

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """Checks the text without thinking blocks against `schema`, else against the request's own.

    The request's own is its `response_format`: `json_schema`, or `json_object` (any object).
    Without either the status is `none`. `fences` allows one code fence around the JSON. The
    canonical answer is the JSON with sorted keys.

    Raises:
        VerifierSetupError: `schema` is not a schema, or refers to something outside itself.
    """

    name: str
    checker: SchemaChecker
    schema: Any = None
    fences: bool = False

    def __post_init__(self) -> None:
        if self.schema is not None:
            try:
                compile_schema(self.schema)
            except ValueError as error:
                why = getattr(error, "message", error)
                raise VerifierSetupError(f"schema: not a JSON Schema: {why}") from None

    async def open(self) -> None:
        """Open the checker."""
        await self.checker.open()

    async def close(self) -> None:
        """Close the checker."""
        await self.checker.close()

    def judges(self, task: Task) -> bool:
        """Say whether there may be a schema."""
        return self.schema is not None or task.response_format is not None

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Check the text.

        Raises:
            VerifierError: the request's schema is wrong, the text is too long, or checking it took
                too much time or memory.
        """
        schema = _requested(task) if self.schema is None else self.schema
        if schema is None:
            return undecided(self.name, None, "no_schema")
        text = strip_thinking(sample.path_text).strip()
        fenced = _FENCE.fullmatch(text) if self.fences else None
        document = Document(text if fenced is None else fenced[1], schema)
        [result] = await self.checker.check([document])
        if result.outcome == "schema":
            raise VerifierError(
                f"the request's response_format holds no JSON Schema: {result.message}",
                reason="protocol",
            )
        if result.outcome == "ok":
            return passed(self.name, result.canonical)
        if result.outcome == "parse":
            return failed(self.name, None, "parse", f"The text is not JSON: {result.message}.")
        feedback = self._feedback(result)
        return failed(self.name, result.canonical, "schema", feedback)

    def _feedback(self, result: Result) -> str:
        # A schema of the request is known to the model, one of the operator may hold the answer.
        why = result.message if self.schema is None else f"violates {result.keyword!r}"
        return f"At {result.where or '/'}: {why}."


def _requested(task: Task) -> Any:
    if task.response_format is None:
        return None
    try:
        given = msgspec.json.decode(task.response_format)
        match given["type"]:
            case "json_object":
                return {"type": "object"}
            case "json_schema":
                # Chat completions nest it, the Responses API does not.
                return given["json_schema"]["schema"] if "json_schema" in given else given["schema"]
            case _:
                return None
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError):
        raise VerifierError(
            "the request's response_format has no usable form", reason="protocol"
        ) from None
