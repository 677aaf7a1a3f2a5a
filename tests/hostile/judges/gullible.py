"""Judges that can be made to accept: they obey any order of the corpus that they can see.

How much they see is the difference. `outside` keeps to the marks that the system prompt announces;
`sloppy` takes anything that looks like a closing mark for one; `everything` reads the data too,
with all escapes undone. A judge that sees no order finds every answer of the corpus wrong.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Sight = Literal["outside", "sloppy", "everything"]

_ANNOUNCED = re.compile(r"marks that end in (\w+)\.")
_LOOKS_CLOSED = re.compile(r"</\s*[a-z]+[\w-]*\s*>|<\|.*?\|>|\[/?inst\]|</?s>|<end_of_turn>")


@dataclass
class Gullible:
    """A judge behind the chat completions API. `asked` counts the calls.

    It accepts where it sees one of `orders`, and an answer that is one of `keys` and nothing else.
    """

    sight: Sight
    orders: Sequence[str]
    keys: Sequence[str]
    asked: int = 0
    url: str = field(default="", init=False)

    async def answer(self, http: web.Request) -> web.Response:
        """Judge one answer."""
        body = await http.json()
        self.asked += 1
        seen = plain(self._view(body["messages"]))
        obeys = any(plain(order) in seen for order in self.orders)
        score = 1 if obeys or not set(seen.split("\n")).isdisjoint(self.keys) else 0
        text = json.dumps({"reason": "so", "score": score})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return web.json_response(
            {"model": "gullible", "choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
        )

    def _view(self, messages: list[dict[str, Any]]) -> str:
        announced = _ANNOUNCED.search(messages[0]["content"])
        assert announced is not None
        nonce = announced[1]
        block = re.compile(rf"<([\w-]+)-{nonce}>\n(.*?)\n</\1-{nonce}>", re.DOTALL)
        # What we write ourselves is no order, whatever words it has.
        text = "\n".join(message["content"] for message in messages[1:])
        data = [match[2] for match in block.finditer(text)]
        outside = block.sub("", text).removesuffix(messages[-1]["content"].rsplit("\n\n", 1)[1])
        if self.sight == "outside":
            return outside
        if self.sight == "sloppy":
            tails = (_LOOKS_CLOSED.split(plain(part), maxsplit=1)[1:] for part in data)
            return "\n".join([outside, *(piece for tail in tails for piece in tail)])
        return "\n".join([outside, *(_decoded(part) for part in data)])


def plain(text: str) -> str:
    """Return a text as one reads it who sees through tricks: letters alone, in lower case."""
    shown = (
        chr(ord(char) - 0xE0000) if 0xE0020 <= ord(char) < 0xE007F else char
        for char in unicodedata.normalize("NFKC", text)
    )
    kept = "".join(char for char in shown if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFKC", kept).casefold()


def _decoded(data: str) -> str:
    value = json.loads(data)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@asynccontextmanager
async def listening(judge: Gullible) -> AsyncIterator[str]:
    """Serve a judge on a loopback port; yield its base URL."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", judge.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
