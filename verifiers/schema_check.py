"""Check JSON texts against JSON Schemas: here when that is certain to be quick, else in a worker.

A schema can come with a request, and a few nested `$ref` take hours to evaluate. So only short
texts under short, plain schemas are checked on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jsonschema_rs
import msgspec

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.pool import WorkerPool
from samplewise.verifiers.strict_json import canonical, loads

__all__ = ["SCHEMA_TARGET", "Document", "Result", "SchemaChecker", "check_all", "compile_schema"]

SCHEMA_TARGET = "samplewise.verifiers.schema_check:check_all"

_INLINE_CHARS = 2_000
_COSTLY = ('Ref":', '$ref":', '"unevaluated', '"pattern', '"format"')


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON text and the schema it must satisfy; None accepts every JSON value."""

    text: str
    schema: Any = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one document.

    `ok`, `parse` (not JSON), `invalid` (against the schema) or `schema` (the schema itself is
    wrong). `canonical` is set when it is JSON. `where` is a JSON pointer, `keyword` the keyword of
    the schema that is violated, and `message` says it in words that can hold values of the schema.
    """

    outcome: Literal["ok", "parse", "invalid", "schema"]
    canonical: str = ""
    where: str = ""
    keyword: str = ""
    message: str = ""


def compile_schema(schema: Any) -> jsonschema_rs.Draft202012Validator:
    """Compile a draft 2020-12 schema; nothing is fetched, patterns run in linear time.

    Raises:
        ValueError: it is not a schema, or refers to something outside itself.
    """
    return jsonschema_rs.Draft202012Validator(
        schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True
    )


def check_all(payload: dict[str, Any]) -> dict[str, Any]:
    """Check `payload["documents"]`, as a worker's target; returns `{"results": [...]}`."""
    documents = msgspec.convert(payload["documents"], list[Document])
    return {"results": msgspec.to_builtins([_check(document) for document in documents])}


def _check(document: Document) -> Result:
    try:
        value = loads(document.text)
    except ValueError as error:
        return Result("parse", message=str(error)[:200])
    text = canonical(value)
    if document.schema is None:
        return Result("ok", text)
    try:
        validator = compile_schema(document.schema)
    except ValueError as error:
        return Result("schema", message=str(getattr(error, "message", error))[:200])
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        where = "".join(f"/{step}" for step in error.instance_path)
        return Result("invalid", text, where, error.kind.name, error.message[:200])
    except ValueError as error:
        return Result("invalid", text, message=str(error)[:200])
    return Result("ok", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChecker:
    """Checks documents, in `pool` (of `SCHEMA_TARGET`) when it could take long.

    More than `max_chars` characters of text are an error.
    """

    pool: WorkerPool
    max_chars: int = 1_000_000

    async def open(self) -> None:
        """Do nothing: most servers never need the worker, so it starts at first use."""

    async def close(self) -> None:
        """Stop the worker."""
        await self.pool.close()

    async def check(self, documents: Sequence[Document]) -> list[Result]:
        """Return one result per document, same order.

        Raises:
            VerifierError: too long, or the worker ran out of time or memory.
        """
        size = sum(len(document.text) for document in documents)
        if size > self.max_chars:
            raise VerifierError(f"more than {self.max_chars} characters", reason="protocol")
        if size <= _INLINE_CHARS and all(_plain(document.schema) for document in documents):
            return [_check(document) for document in documents]
        reply = await self.pool.call({"documents": msgspec.to_builtins(documents)})
        return msgspec.convert(reply["results"], list[Result])


def _plain(schema: Any) -> bool:
    text = canonical(schema)
    return len(text) <= _INLINE_CHARS and not any(word in text for word in _COSTLY)
