"""DSPy's LM and a signature through its chat adapter."""

from __future__ import annotations

from typing import Any

import dspy
from dspy.utils.exceptions import LMError


class Add(dspy.Signature):
    """Add the numbers."""

    question: str = dspy.InputField()
    steps: list[str] = dspy.OutputField()
    answer: int = dspy.OutputField()


def _lm(ask: Any, **options: Any) -> dspy.LM:
    given = {"cache": False, "num_retries": 2} | options
    return dspy.LM(f"openai/{ask['model']}", api_base=ask["url"], api_key="none", **given)


def plain(ask: Any) -> Any:
    lm = _lm(ask)
    (text,) = lm(ask["text"])
    usage = lm.history[-1]["usage"]
    return {"text": text, "tokens": [usage["prompt_tokens"], usage["completion_tokens"]]}


def structured(ask: Any) -> Any:
    with dspy.context(lm=_lm(ask), adapter=dspy.JSONAdapter()):
        found = dspy.Predict(Add)(question=ask["text"])
    return {"parsed": {"steps": found.steps, "answer": found.answer}}


def refused(ask: Any) -> Any:
    try:
        plain(ask)
    except LMError as error:
        return {"status": error.status, "code": error.provider_code}
    return {"status": 200}
