"""Reward models as vLLM serves them: the same paths, names and forms, over a toy of a model.

The model's raw number is the one that stands after `r=` in the answer, so a test says it by text.
Field names follow the versions: `old` knows `softmax` and `text_1`, `mid` `activation`, `new`
`use_activation`, `queries` and `task`. As vLLM does, fields that a version does not know are passed
over in silence. Sources: vLLM's request classes of 0.10, 0.11 and 0.15, and
https://docs.vllm.ai/en/latest/models/pooling_models.html.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from aiohttp import web

Version = Literal["old", "mid", "new"]
_ACTIVATION = {"old": "softmax", "mid": "activation", "new": "use_activation"}
_RAW = re.compile(r"r=(-?\d+(?:\.\d+)?)")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of server it is. `paths` are those it has; `usage` how it reports tokens."""

    version: Version = "new"
    paths: tuple[str, ...] = ("/classify", "/pooling", "/score", "/rerank")
    describes: bool = True
    task: Literal["classify", "token_classify", "token_embed", "step"] = "classify"
    tag: str = "<extra_0>"
    good: int = 1
    raw_steps: bool = False
    labels: int = 1
    usage: Literal["full", "total", "none"] = "full"
    lose_step: bool = False


@dataclass
class Server:
    """Answers calls and remembers them."""

    options: Options
    calls: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        for path in self.options.paths:
            app.router.add_post(path, self.answer)
        if self.options.describes:
            app.router.add_get("/openapi.json", self.describe)
        app.router.add_get("/control/calls", self.told)
        return app

    async def told(self, http: web.Request) -> web.Response:
        """Return what was asked."""
        return web.json_response(self.calls)

    async def describe(self, http: web.Request) -> web.Response:
        """Describe the paths as FastAPI does: a union of references."""
        names = {path: self._fields(path) for path in self.options.paths}
        schemas = {
            path.strip("/"): {"type": "object", "properties": {name: {} for name in fields}}
            for path, fields in names.items()
        }
        content = {
            path: {"anyOf": [{"$ref": f"#/components/schemas/{path.strip('/')}"}, {"type": "null"}]}
            for path in names
        }
        return web.json_response(
            {
                "paths": {
                    path: {
                        "post": {"requestBody": {"content": {"application/json": {"schema": s}}}}
                    }
                    for path, s in content.items()
                },
                "components": {"schemas": schemas},
            }
        )

    def _fields(self, path: str) -> list[str]:
        version = self.options.version
        names = ["model", _ACTIVATION[version]]
        pair = ["queries", "documents"] if version == "new" else ["text_1", "text_2"]
        own = {"/score": pair, "/rerank": ["query", "documents", "top_n"]}
        names += own.get(path, ["input", "messages"])
        return names + (["task"] if path == "/pooling" and version != "old" else [])

    async def answer(self, http: web.Request) -> web.Response:
        """Answer one call."""
        body = await http.json()
        path = http.path
        self.calls.append({"path": path, "id": http.headers.get("X-Request-Id", ""), "body": body})
        wrong = self._wrong(path, body)
        if wrong:
            return web.json_response({"error": {"message": wrong, "code": 400}}, status=400)
        text = _text(path, body)
        reply = self._reply(path, text, body) | self._usage(body)
        return web.json_response(reply)

    def _wrong(self, path: str, body: dict[str, Any]) -> str:
        options = self.options
        known = self._fields(path)
        for name in {"/score": known[2:4], "/rerank": ["query", "documents"]}.get(path, []):
            if name not in body:
                return f"[{{'type': 'missing', 'loc': ('body', '{name}')}}]"
        if path not in ("/score", "/rerank") and not {"input", "messages"} & set(body):
            return "neither input nor messages"
        own = "token_classify" if options.task == "step" else options.task
        if path == "/pooling" and "task" in known and body.get("task", own) != own:
            return f"Unsupported task: {body['task']}; try --pooler-config.task"
        if path != "/pooling" and options.task != "classify":
            return "The model does not support Classification API"
        return ""

    def _reply(self, path: str, text: str, body: dict[str, Any]) -> dict[str, Any]:
        options = self.options
        found = _RAW.search(text)
        raw = float(found[1]) if found else 0.0
        active = body.get(_ACTIVATION[options.version], True)
        if options.task in ("step", "token_embed"):
            steps = text.split(options.tag)[: -1 - options.lose_step]
            data: Any = [self._step(step) for step in steps]
            if options.task == "token_embed":
                # vLLM 0.32 with `returned_token_ids` on a model without a head: two places of the
                # hidden state, which mean nothing.
                data = [[0.36, -0.48] for _ in steps]
            return {"object": "list", "data": [{"index": 0, "object": "pooling", "data": data}]}
        values = [raw] if options.labels == 1 else [-raw, raw][: options.labels]
        shown = _activated(values) if active else values
        match path:
            case "/classify":
                label = {"index": 0, "label": "LABEL_0", "num_classes": len(shown)}
                return {"data": [{**label, "probs": shown}]}
            case "/score":
                return {"data": [{"index": 0, "object": "score", "score": shown[0]}]}
            case "/rerank":
                return {"results": [{"index": 0, "document": {}, "relevance_score": shown[0]}]}
        tokens: Any = [[0.0], [1.0], shown] if options.task == "token_classify" else shown
        return {"object": "list", "data": [{"index": 0, "object": "pooling", "data": tokens}]}

    def _step(self, text: str) -> list[float]:
        found = _RAW.search(text)
        raw = float(found[1]) if found else 0.0
        pair = [0.0, raw] if self.options.good == 1 else [raw, 0.0]
        if self.options.raw_steps:
            return pair
        powers = [math.exp(value) for value in pair]
        return [power / sum(powers) for power in powers]

    def _usage(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = len(msgspec.json.encode(body)) // 4
        match self.options.usage:
            case "full":
                counts = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
                return {"usage": {**counts, "prompt_tokens_details": None}}
            case "total":
                return {"usage": {"total_tokens": tokens}}
            case _:
                return {}


def _activated(values: list[float]) -> list[float]:
    if len(values) == 1:
        return [1 / (1 + math.exp(-values[0]))]
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def _text(path: str, body: dict[str, Any]) -> str:
    """Return the answer's text in a body."""
    if path in ("/score", "/rerank"):
        documents = body.get("documents", body.get("text_2"))
        return documents[0] if isinstance(documents, list) else str(documents)
    if "messages" in body:
        content: str = body["messages"][-1]["content"]
        return content
    return str(body["input"])
