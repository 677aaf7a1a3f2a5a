"""The process that litellm works in: reads calls from its parent, and writes what came of them.

Run by `litellm_process` alone: python -m samplewise.proxy.backends.litellm_worker. It ends when its
parent does. Frames are JSON behind their length, see `read_frame`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from samplewise.proxy.backends.base import Broken
from samplewise.proxy.boundary import boundary

__all__ = ["FIELDS", "Calls", "main", "read_frame", "write_frame"]

_MOST_BYTES = 64 * 2**20
_LENGTH = struct.Struct(">Q")
# What a client may hand to litellm by name. Any other name could be one of litellm's own settings:
# with `base_url`, a client would have the operator's key sent to itself.
_NAMES = """audio frequency_penalty function_call functions logit_bias logprobs max_tokens
max_completion_tokens messages modalities model n parallel_tool_calls prediction presence_penalty
prompt_cache_key prompt_cache_retention reasoning_effort response_format safety_identifier seed
service_tier stop store temperature thinking tool_choice tools top_k top_logprobs top_p user
verbosity web_search_options"""
FIELDS = frozenset(_NAMES.split())
# Retries are ours. litellm's MCP client, wanted for any tools, is no part of the extra.
_ALWAYS = {"num_retries": 0, "max_retries": 0, "drop_params": True, "_skip_mcp_handler": True}
_ENDS = {"Timeout": "timeout", "ConnectError": "connect", "ReadError": "cut"}


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the next frame.

    Raises:
        IncompleteReadError: there is none.
    """
    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(size)


def write_frame(content: object) -> bytes:
    """Return a frame with an object as JSON."""
    data = msgspec.json.encode(content)
    return _LENGTH.pack(len(data)) + data


@dataclass(slots=True)
class Calls:
    """Calls of litellm on their way; `say` takes frames with what came of them."""

    library: Any
    say: Callable[[bytes], None]
    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def take(self, frame: Mapping[str, Any]) -> None:
        """Carry out what a frame of the parent says: a call, a check, or the end of a call."""
        id_ = frame["id"]
        if "cancel" in frame:
            task = self.running.get(id_)
            if task is not None:
                task.cancel()
        elif "check" in frame:
            self.say(write_frame({"id": id_, "problem": self.problem(frame["check"])}))
        else:
            self.running[id_] = task = asyncio.create_task(self._call(id_, frame["call"]))
            task.add_done_callback(lambda _: self.running.pop(id_, None))

    def problem(self, model: str) -> str:
        """Return why litellm cannot call a model; empty where it can."""
        try:
            with boundary(_Unknown):
                listed, _ = self._knows(model)
        except _Unknown as error:
            return str(error)
        return "" if "max_tokens" in listed else f"litellm cannot cap the tokens of {model!r}"

    async def _call(self, id_: int, call: Mapping[str, Any]) -> None:
        try:
            with boundary(_Refused, _Refused):
                reply, lost = await self.complete(call)
                said = write_frame({"id": id_, "reply": reply, "lost": lost})
        except _Refused as refused:
            said = write_frame({"id": id_, "broken": refused.broken})
        if len(said) > _MOST_BYTES:
            text = f"answer exceeds {_MOST_BYTES} bytes"
            said = write_frame({"id": id_, "broken": Broken("too_large", text)})
        self.say(said)

    async def complete(self, call: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Call the model; return its answer, and the names of fields that were left out.

        `own` are the operator's settings for litellm. Fields that nobody knows are passed on where
        the provider's dialect is OpenAI's.
        """
        body, own = call["body"], call["own"]
        with boundary(_Refused):
            listed, open_ = self._knows(call["model"])
            takes = FIELDS & {*listed, "messages", "model", "top_k"}
            unknown = {k: v for k, v in body.items() if k not in FIELDS and k not in own}
            lost = [k for k in body if k in FIELDS - takes or (k in unknown and not open_)]
            arguments = {
                **{k: v for k, v in body.items() if k in takes},
                **{k: v for k, v in own.items() if k not in FIELDS},
                "extra_headers": {**own.get("extra_headers", {}), "X-Request-Id": call["id"]},
                "extra_body": {**(unknown if open_ else {}), **own.get("extra_body", {})},
                "timeout": call["timeout_s"],
                **_ALWAYS,
            }
            reply = await self.library.acompletion(**arguments)
            return reply.model_dump(mode="json", warnings=False), lost

    def _knows(self, model: str) -> tuple[frozenset[str], bool]:
        """Return the OpenAI fields that a model takes, and whether others can be passed on."""
        library = self.library
        provider, _, rest = model.partition("/")
        if provider not in library.provider_list:
            rest, provider = library.get_llm_provider(model)[:2]
        listed = library.get_supported_openai_params(rest, provider) or FIELDS
        open_ = provider in ("openai", "azure", *library.openai_compatible_providers)
        return frozenset(listed), open_


class _Unknown(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error)[:200])


class _Refused(Exception):
    def __init__(self, error: Exception) -> None:
        # litellm makes up a status where no answer came, and such a call may have cost its tokens.
        # So a status from 500 counts only together with an answer's headers.
        name, status = type(error).__name__, getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        detail = f"{name}: {' '.join(str(error).split())}"[:300]
        cause: BaseException | None = error
        while cause is not None and type(cause).__name__ not in _ENDS:
            cause = cause.__cause__ or cause.__context__
        self.broken = Broken(_ENDS.get(type(cause).__name__, "protocol"), detail)
        made_up = not headers and (name == "Timeout" or not str(status).startswith("4"))
        if isinstance(status, int) and status >= 400 and not made_up:
            wait = (headers or {}).get("retry-after", "")
            self.broken = Broken("status", detail, status, float(wait) if wait.isdigit() else None)


def imported() -> Any:
    """Import litellm so that it asks nobody for anything, and sends nothing twice."""
    # Without these, litellm fetches tables over the network, at import and at the first call.
    for variable in ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"):
        os.environ.setdefault(variable, "True")
    import litellm
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    litellm.suppress_debug_info = True
    AsyncHTTPHandler.single_connection_post_request = _not_again
    return litellm


async def _not_again(*_: object, **__: object) -> None:
    """Stand in for what litellm does when a connection broke: send the call a second time."""
    raise sys.exception() or RuntimeError("nothing broke")


async def _serve(requests: int, replies: int) -> None:
    """Take frames until the parent closes its end; then everything that runs is cut."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(requests, "rb"))
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(replies, "wb"))
    # Seconds, in which calls may come already: they wait in the pipe.
    calls = Calls(await asyncio.to_thread(imported), transport.write)
    try:
        while True:
            calls.take(msgspec.json.decode(await read_frame(reader)))
    except asyncio.IncompleteReadError:
        return


def main() -> None:
    """Serve the parent over standard input and output."""
    # The parent decides when this process ends: it may still wait for answers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    requests, replies = os.dup(0), os.dup(1)
    # What libraries print must not come between the frames.
    os.dup2(2, 1)
    asyncio.run(_serve(requests, replies))


if __name__ == "__main__":
    main()
