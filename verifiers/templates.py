"""Fill `{{...}}` in a grader's text from the sample and the task.

Names only: `sample.output_text`, `reference`, and `item.` with keys and list positions. Nothing is
evaluated, and what was filled in is not read again, so text in a sample or an item stays text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.base import Sample, Task, VerifierError, VerifierSetupError
from samplewise.verifiers.strict_json import canonical

__all__ = ["Template"]

_FIELD = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_NAME = re.compile(r"sample\.output_text|reference|item(?:\.[\w-]+)+")


@dataclass(frozen=True, slots=True)
class Template:
    """Text with fields: `parts` alternates plain text and field names, plain text first."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template; raises `VerifierSetupError` on a name that cannot be filled in."""
        parts = _FIELD.split(text)
        for name in parts[1::2]:
            if not _NAME.fullmatch(name):
                raise VerifierSetupError(
                    f"template: {{{{{name}}}}} is not known;"
                    " use sample.output_text, reference or item.KEY"
                )
        return cls(tuple(parts))

    def uses(self, name: str) -> bool:
        """Say whether the template holds this field."""
        return name in self.parts[1::2]

    def fill(self, task: Task, sample: Sample) -> str:
        """Return the text with all fields filled in.

        The output text comes without thinking blocks. What is not text comes as JSON.

        Raises:
            VerifierError: the request brought no such item, or no reference.
        """
        filled = list(self.parts)
        for index in range(1, len(filled), 2):
            filled[index] = _value(filled[index], task, sample)
        return "".join(filled)


def _value(name: str, task: Task, sample: Sample) -> str:
    if name == "sample.output_text":
        return strip_thinking(sample.path_text)
    if name == "reference":
        if task.reference is None:
            raise VerifierError("the request brought no reference", reason="protocol")
        return task.reference
    value: object = task.item
    for key in name.split(".")[1:]:
        value = _member(value, key, name)
    return value if isinstance(value, str) else canonical(value)


def _member(value: object, key: str, name: str) -> object:
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list | tuple) and key.isdecimal() and int(key) < len(value):
        item: object = value[int(key)]
        return item
    raise VerifierError(f"the request brought no {name}", reason="protocol")
