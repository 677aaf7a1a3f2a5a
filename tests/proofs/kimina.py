"""A Kimina server of our own on a loopback port, in place of one with a Lean behind it.

It has both paths with their checks of the body, splits imports off as the real one does, leaves out
what is null, and answers as the REPL does: messages with positions in the body, `sorries`. What its
Lean thinks of a source, it is told: by the words in it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

__all__ = ["FakeKimina", "running"]

USES = {"by simp": (), "by omega": ("propext",), "by tauto": ("propext", "Classical.choice")}


@dataclass
class FakeKimina:
    """What it was asked, and how it misbehaves.

    `fault` is one of: 500, 429, garbage, empty, other_id, timeout, oom, repl, hang, silent, forged.
    """

    fault: str = ""
    paths: tuple[str, ...] = ("/api/check", "/verify")
    key: str | None = None
    url: str = ""
    sources: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(self, request: web.Request) -> web.Response:
        """Handle `/api/check`."""
        body = await self._body(request)
        if not isinstance(body.get("timeout", 30), int) or not body.get("snippets"):
            return web.json_response({"detail": "wrong body"}, status=422)
        [snippet] = body["snippets"]
        result = {"id": snippet["id"], "time": 0.1, **await self._result(snippet["code"])}
        return self._reply(result, "id")

    async def verify(self, request: web.Request) -> web.Response:
        """Handle `/verify`."""
        body = await self._body(request)
        [code] = body["codes"]
        result = {"custom_id": str(code["custom_id"]), **await self._result(code["proof"])}
        return self._reply(result, "custom_id")

    async def _body(self, request: web.Request) -> dict[str, Any]:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            raise web.HTTPUnauthorized
        body: dict[str, Any] = await request.json()
        self.asked.append(body)
        return body

    async def _result(self, code: str) -> dict[str, Any]:
        self.sources.append(code)
        match self.fault:
            case "timeout":
                return {"error": "Lean REPL command timed out in 60 seconds"}
            case "oom":
                return {"error": "Lean REPL out of memory"}
            case "repl":
                return {"response": {"message": "Unknown environment."}}
            case "hang":
                await self.released.wait()
        return {"response": self._lean(code)}

    def _lean(self, code: str) -> dict[str, Any]:
        lines = code.splitlines()
        while lines and (not lines[0].strip() or lines[0].startswith("import ")):
            del lines[0]  # the header runs apart, and positions are those of the rest
        text = "\n".join(lines)
        messages, sorries = [], []
        if "wrong" in text:
            messages.append(_message(1, "error", "unsolved goals\n⊢ False"))
        if re.search(r"\bhole\b", text):
            sorries.append({"pos": {"line": 1, "column": 0}, "goal": "⊢ False", "proofState": 0})
            messages.append(_message(1, "warning", "declaration uses 'sorry'"))
        asked = re.search(r"#print axioms (\w+)", text)
        if asked is not None and self.fault != "silent":
            line = text[: asked.start()].count("\n") + 1
            used = next((axioms for words, axioms in USES.items() if words in text), ())
            used += ("Lean.ofReduceBool",) if "evaluate" in text else ()
            name = "answer" if self.fault == "forged" else asked[1]
            said = "depends on axioms: [" + ",\n ".join(used) + "]"
            said = said if used else "does not depend on any axioms"
            messages.append(_message(line, "info", f"'{name}' {said}"))
        reply: dict[str, Any] = {"env": 0}
        reply |= {"messages": messages} if messages else {}
        return reply | ({"sorries": sorries} if sorries else {})

    def _reply(self, result: dict[str, Any], named: str) -> web.Response:
        match self.fault:
            case "500":
                return web.json_response({"detail": "Internal"}, status=500)
            case "429":
                return web.json_response({"detail": "No available REPLs"}, status=429)
            case "garbage":
                return web.Response(text="<html>")
            case "empty":
                return web.json_response({"results": []})
            case "other_id":
                result = {**result, named: "x"}
        return web.Response(text=json.dumps({"results": [result]}), content_type="application/json")


def _message(line: int, severity: str, data: str) -> dict[str, Any]:
    place = {"line": line, "column": 0}
    return {"severity": severity, "pos": place, "endPos": place, "data": data}


@asynccontextmanager
async def running(**how: Any) -> AsyncIterator[FakeKimina]:
    """Yield such a server, with its address in `url`."""
    fake = FakeKimina(**how)
    app = web.Application()
    handlers = {"/api/check": fake.check, "/verify": fake.verify}
    for path in fake.paths:
        app.router.add_post(path, handlers[path])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = "http://{}:{}".format(*runner.addresses[0])
        yield fake
    finally:
        fake.released.set()
        await runner.cleanup()
