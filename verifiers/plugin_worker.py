"""Call the operator's grader functions with JSON values; runs in a worker process."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["accepted", "call", "load"]


def call(payload: dict[str, Any]) -> dict[str, Any]:
    """Call `payload["function"]` with `args` and those of `kwargs` that it accepts.

    Returns `{"value": ...}`, or `{"unfit": why}` when the value is not JSON. Numbers of other
    libraries (NumPy, PyTorch) become plain ones; coroutine functions run to their end.
    """
    function = load(payload["function"])
    value = function(*payload["args"], **accepted(function, payload["kwargs"]))
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    try:
        return {"value": json.loads(json.dumps(value, allow_nan=False, default=_plain))}
    except (TypeError, ValueError) as error:
        return {"unfit": str(error)[:200]}


def load(name: str) -> Callable[..., Any]:
    """Return the function that "module:function" names; raises what its import raises."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def accepted(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that a function takes; all when it has `**kwargs`."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(kwargs)
    return {name: value for name, value in kwargs.items() if name in parameters}


def _plain(value: Any) -> Any:
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} is not JSON")
    return item()
