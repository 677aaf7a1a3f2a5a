"""Providers that do not speak the OpenAI dialect, translated by the litellm library (an extra).

litellm takes milliseconds of processor time a call, so it has an event loop in a thread of its own
and never holds the proxy's loop. It still shares the interpreter with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import msgspec

from samplewise.policies.price import Price
from samplewise.proxy.backends.base import Broken, Call, Reading, SampleEvent, Started, Totals
from samplewise.proxy.backends.choices import read_choice, read_usage
from samplewise.proxy.boundary import boundary
from samplewise.proxy.config_backends import LiteLLMBackendSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.price_tables import Table
from samplewise.proxy.upstreams import Upstream

__all__ = ["LiteLLMBackend", "LiteLLMThread", "litellm_upstream", "table_price"]

# What a client may hand to litellm by name. Any other name could be one of litellm's own settings:
# with `base_url`, a client would have the operator's key sent to itself.
_NAMES = """audio frequency_penalty function_call functions logit_bias logprobs max_tokens
max_completion_tokens messages modalities model n parallel_tool_calls prediction presence_penalty
prompt_cache_key prompt_cache_retention reasoning_effort response_format safety_identifier seed
service_tier stop store temperature thinking tool_choice tools top_k top_logprobs top_p user
verbosity web_search_options"""
_FIELDS = frozenset(_NAMES.split())
# Retries are ours. litellm's MCP client, wanted for any tools, is no part of the extra.
_ALWAYS = {"num_retries": 0, "max_retries": 0, "drop_params": True, "_skip_mcp_handler": True}
_ENDS = {"Timeout": "timeout", "ConnectError": "connect", "ReadError": "cut"}


class LiteLLMThread:
    """The event loop of all litellm calls. One for all, because litellm keeps tasks on its loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Coroutine[Any, Any, list[SampleEvent]]) -> Future[list[SampleEvent]]:
        """Run a coroutine there. Cancelling the future cancels it."""
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=[loop], name="litellm", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def close(self) -> None:
        """Cancel what runs, close litellm's connections and wait until the thread has ended."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join, 10.0)
            self._loop = self._thread = None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        loop.run_forever()
        library = _import()
        runner.run(library.close_litellm_async_clients())
        # The cache knows a loop by its address, which the next loop may have again.
        library.in_memory_llm_clients_cache.flush_cache()


@dataclass(frozen=True, slots=True)
class LiteLLMBackend:
    """Calls one model through litellm, unstreamed and once: retries are ours alone.

    A cancelled call closes its connection, but is billed at its worst case: no tokens are counted.
    `own` are the operator's settings for litellm, `takes` the OpenAI fields of the model. Fields
    that nobody knows are passed on where `open`; what is not passed on is warned of.
    """

    library: Any
    thread: LiteLLMThread
    own: Mapping[str, Any] = field(repr=False)
    takes: frozenset[str]
    open: bool

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Send the call and yield what comes. Closing the iterator cancels it."""
        # What litellm does with its connections is not to be seen: sent from here on.
        call.sending()
        work = self.thread.submit(self._complete(call))
        try:
            async with asyncio.timeout(call.timeout_s):
                events = await asyncio.wrap_future(work)
            yield Started()
            for event in events:
                yield event
        except TimeoutError:
            yield Broken("timeout", f"no answer within {call.timeout_s:g} s")
        except _Refused as refused:
            yield refused.broken
        finally:
            work.cancel()

    async def _complete(self, call: Call) -> list[SampleEvent]:
        body = msgspec.json.decode(call.body)
        unknown = {k: v for k, v in body.items() if k not in _FIELDS and k not in self.own}
        lost = [k for k in body if k in _FIELDS - self.takes or (k in unknown and not self.open)]
        arguments = {
            **{k: v for k, v in body.items() if k in self.takes},
            **{k: v for k, v in self.own.items() if k not in _FIELDS},
            "extra_headers": {**self.own.get("extra_headers", {}), "X-Request-Id": call.id},
            "extra_body": {**(unknown if self.open else {}), **self.own.get("extra_body", {})},
            "timeout": call.timeout_s,
            **_ALWAYS,
        }
        with boundary(_Refused):
            reply = await self.library.acompletion(**arguments)
            events = _events(reply.model_dump(mode="json", warnings=False), lost, call.reading)
        return events


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


def _events(reply: Mapping[str, Any], lost: list[str], reading: Reading) -> list[SampleEvent]:
    events: list[SampleEvent] = []
    for index, raw in enumerate(reply.get("choices") or ()):
        message = {"content": None, **_restored(raw["message"])}
        choice = {**_restored(raw), "index": index, "message": message}
        if choice.get("native_finish_reason") in ("abort", "error", "repetition"):
            # litellm calls every end "stop" that it does not know.
            choice["finish_reason"] = choice["native_finish_reason"]
        events.append(read_choice(encode(choice), reading=reading))
    usage, warning = read_usage(encode(reply.get("usage")))
    if usage is not None and not usage.prompt:
        # What litellm puts where the provider sent nothing: no prompt is without tokens.
        usage, warning = None, "upstream sent no usage"
    head = {k: v for k, v in reply.items() if k not in ("choices", "usage") and v is not None}
    left_out = f"litellm does not pass on {', '.join(lost)}"[:300] if lost else ""
    warnings = tuple(text for text in (left_out, warning) if text)
    return [*events, Totals(usage, str(reply.get("model") or ""), encode(head), warnings)]


def _restored(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with what litellm moved aside at its old place too, and without nulls."""
    moved = part.get("provider_specific_fields") or {}
    return {k: v for k, v in {**moved, **part}.items() if v is not None}


def litellm_upstream(
    name: str, settings: LiteLLMBackendSettings, thread: LiteLLMThread
) -> Upstream:
    """Import litellm and build an upstream of it whose calls run in `thread`.

    Raises:
        ConfigError: the extra is not installed, litellm cannot call the model or cap its tokens, or
            it has no price anywhere.
    """
    library, model, most = _import(), settings.model, settings.max_in_flight
    provider, _, rest = model.partition("/")
    with boundary(lambda error: ConfigError(f"backends.{name}.model: {str(error)[:200]}")):
        if provider not in library.provider_list:
            rest, provider = library.get_llm_provider(model)[:2]
        listed = library.get_supported_openai_params(rest, provider) or _FIELDS
    if "max_tokens" not in listed:
        raise ConfigError(f"backends.{name}.model: litellm cannot cap the tokens of {model!r}")
    try:
        price = settings.price.build() if settings.price else table_price(library, model)
    except ValueError as error:
        raise ConfigError(f"backends.{name}.price: {error}") from error
    key = settings.api_key.get_secret_value() if settings.api_key else None
    given = {"api_key": key, "api_base": settings.api_base}
    backend = LiteLLMBackend(
        library=library,
        thread=thread,
        own={**settings.params, **{k: v for k, v in given.items() if v is not None}},
        takes=_FIELDS & {*listed, "messages", "model", "top_k"},
        open=provider in ("openai", "azure", *library.openai_compatible_providers),
    )
    return Upstream(
        name=name,
        backend=backend,
        model=model,
        price=price,
        timeout_s=settings.timeout_s,
        streams=False,
        max_n=1,  # Most providers behind litellm refuse or drop n: a call for each sample.
        token_field="max_tokens",  # The name that litellm translates for every provider.
        params={k: v for k, v in settings.params.items() if k in _FIELDS},
        slots=asyncio.Semaphore(most) if most else None,
        max_in_flight=most,
    )


def _import() -> Any:
    # Without these, litellm fetches tables over the network, at import and at the first call.
    for variable in ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"):
        os.environ.setdefault(variable, "True")
    try:
        import litellm
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    except ImportError as error:
        raise ConfigError("type litellm needs pip install 'samplewise[litellm]'") from error
    litellm.suppress_debug_info = True
    AsyncHTTPHandler.single_connection_post_request = _not_again
    return litellm


async def _not_again(*_: object, **__: object) -> None:
    """Stand in for what litellm does when a connection broke: send the call a second time."""
    raise sys.exception() or RuntimeError("nothing broke")


def table_price(library: Any, model: str) -> Price:
    """Return the price per token in litellm's own table.

    Raises:
        ValueError: it has none.
    """
    return Table(f"litellm-{version('litellm')}", library.model_cost).price(model).price
