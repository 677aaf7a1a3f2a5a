"""Instructor on openai-python: answers as objects, from JSON text and from a forced tool call."""

from __future__ import annotations

from typing import Any

import instructor
import openai
from instructor.core import InstructorRetryException
from pydantic import BaseModel


class Sum(BaseModel):
    steps: list[str]
    answer: int


def _ask(ask: Any, mode: instructor.Mode, timeout_s: float = 600) -> Any:
    client = openai.OpenAI(base_url=ask["url"], api_key="none", max_retries=2, timeout=timeout_s)
    wrapped = instructor.from_openai(client, mode=mode)
    messages: Any = [{"role": "user", "content": ask["text"]}]
    return wrapped.create_with_completion(
        model=ask["model"], messages=messages, response_model=Sum, max_retries=1
    )


def structured(ask: Any) -> Any:
    found, answer = _ask(ask, instructor.Mode.JSON_SCHEMA)
    usage = answer.usage
    return {
        "parsed": found.model_dump(),
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
        "cost": usage.cost,
        "report": answer.model_extra["samplewise"],
    }


def forced(ask: Any) -> Any:
    return {"parsed": _ask(ask, instructor.Mode.TOOLS)[0].model_dump()}


def structured_stream(ask: Any) -> Any:
    client = openai.OpenAI(base_url=ask["url"], api_key="none", max_retries=2)
    wrapped = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    messages: Any = [{"role": "user", "content": ask["text"]}]
    parts = list(wrapped.create_partial(model=ask["model"], messages=messages, response_model=Sum))
    return {"parsed": parts[-1].model_dump(), "pieces": len(parts)}


def refused(ask: Any) -> Any:
    try:
        structured(ask)
    except openai.APIStatusError as error:
        return {"status": error.status_code, "code": error.code}
    except InstructorRetryException as error:
        cause: Any = error.__cause__
        while not isinstance(cause, openai.APIStatusError):
            cause = cause.__cause__ or cause.last_attempt.exception()
        return {"status": cause.status_code, "code": cause.code}
    return {"status": 200}


def patient(ask: Any) -> Any:
    return {"parsed": _ask(ask, instructor.Mode.JSON_SCHEMA, ask["timeout_s"])[0].model_dump()}
