"""Grader functions as an operator would write them: good ones, wrong ones, slow ones."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

Json = dict[str, Any]


def grade(sample: Json, item: Json) -> float:
    print("graders may print")
    return 1.0 if item["reference"] in sample["output_text"] else 0.0


def everything(sample: Json, item: Json) -> Json:
    return {"status": "none", "answer": repr([sample, item])[:5000]}


def detailed(sample: Json, item: Json) -> Json:
    return {
        "status": "fail",
        "score": 0.25,
        "answer": sample["output_text"],
        "reason": "style",
        "feedback": f"Use {item['style']}.",
    }


def number_like(sample: Json, item: Json) -> Any:
    class Float32:
        def item(self) -> float:
            return 0.5

    return Float32()


def by_text(sample: Json, item: Json) -> Any:
    """Do what the sample says."""
    match sample["output_text"]:
        case "raise":
            raise ValueError("bad day")
        case "exit":
            os._exit(0)
        case "hang":
            time.sleep(60)
        case "memory":
            return bool(b"x" * 2**31)
        case "none":
            return None
        case "text":
            return "pass"
        case "nan":
            return float("nan")
        case "object":
            return object()
        case "yes":
            return {"status": "pass", "passed": True}
    return True


async def slow_but_fine(sample: Json, item: Json) -> bool:
    await asyncio.sleep(0)
    return "good" in sample["output_text"]


async def async_by_text(sample: Json, item: Json) -> Any:
    sample["output_text"] += "!"  # must not be seen by anybody else
    match sample["output_text"]:
        case "raise!":
            raise ValueError("bad day")
        case "cancel!":
            raise asyncio.CancelledError
        case "hang!":
            await asyncio.Event().wait()
    return True


def reward(completion: list[Json], answer: str, **kwargs: Any) -> float:
    assert set(kwargs) == {"prompt", "info", "state", "task"}
    return 1.0 if completion[-1]["content"].strip() == answer else 0.0


async def reward_async(completion: list[Json], info: Json) -> float:
    return 0.5 if info["half"] else 1.0


def longer(a: Json, b: Json, item: Json) -> str:
    lengths = len(a["output_text"]), len(b["output_text"])
    return "tie" if lengths[0] == lengths[1] else "a" if lengths[0] > lengths[1] else "b"


def unsure(a: Json, b: Json, item: Json) -> str:
    return "perhaps"


def same_letters(a: str, b: str) -> bool:
    return sorted(a) == sorted(b)


def same_wrong(a: str, b: str) -> Any:
    return 1
