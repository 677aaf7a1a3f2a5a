"""Providers that do not speak the OpenAI dialect, translated by the litellm library (an extra).

litellm takes milliseconds of processor time a call, so it works in a process of its own and never
holds the proxy's loop. It is not imported here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import msgspec

from samplewise.policies.price import Price
from samplewise.proxy.backends.base import Broken, Call, Reading, SampleEvent, Started, Totals
from samplewise.proxy.backends.choices import read_choice, read_usage
from samplewise.proxy.backends.litellm_process import LiteLLMProcess, ProcessLost
from samplewise.proxy.backends.litellm_worker import FIELDS
from samplewise.proxy.config_backends import LiteLLMBackendSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.price_tables import litellm_table
from samplewise.proxy.upstreams import Upstream

__all__ = ["LiteLLMBackend", "check_models", "litellm_upstream"]


@dataclass(frozen=True, slots=True)
class LiteLLMBackend:
    """Calls one model through litellm, unstreamed and once: retries are ours alone.

    A cancelled call closes its connection, but is billed at its worst case: no tokens are counted.
    The same holds for a call whose process died. `own` are the operator's settings for litellm;
    what is not passed on is warned of.
    """

    process: LiteLLMProcess
    model: str
    own: Mapping[str, Any] = field(repr=False)

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Send the call and yield what comes. Closing the iterator cancels it."""
        frame = {
            "id": call.id,
            "model": self.model,
            "body": msgspec.Raw(call.body),
            "own": self.own,
            "timeout_s": call.timeout_s,
        }
        try:
            async with asyncio.timeout(call.timeout_s):
                # What litellm does with its connections is not to be seen: sent from here on.
                said = await self.process.ask({"call": frame}, call.sending)
        except TimeoutError:
            yield Broken("timeout", f"no answer within {call.timeout_s:g} s")
            return
        except ProcessLost as lost:
            yield Broken("cut" if lost.sent else "connect", str(lost), sent=lost.sent)
            return
        if "broken" in said:
            yield msgspec.convert({**said["broken"], "body": b""}, Broken)
            return
        events = _events(said["reply"], said["lost"], call.reading)
        yield Started()
        for event in events:
            yield event


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
    name: str, settings: LiteLLMBackendSettings, process: LiteLLMProcess
) -> Upstream:
    """Build an upstream whose calls run in `process`. Whether litellm knows the model: see `check`.

    Raises:
        ConfigError: the extra is not installed, or the model has no price anywhere.
    """
    if not _installed():
        raise ConfigError("type litellm needs pip install 'samplewise[litellm]'")
    model, most = settings.model, settings.max_in_flight
    try:
        price = settings.price.build() if settings.price else table_price(model)
    except ValueError as error:
        raise ConfigError(f"backends.{name}.price: {error}") from error
    key = settings.api_key.get_secret_value() if settings.api_key else None
    given = {"api_key": key, "api_base": settings.api_base}
    own = {**settings.params, **{k: v for k, v in given.items() if v is not None}}
    return Upstream(
        name=name,
        backend=LiteLLMBackend(process, model, own),
        model=model,
        price=price,
        timeout_s=settings.timeout_s,
        streams=False,
        max_n=1,  # Most providers behind litellm refuse or drop n: a call for each sample.
        token_field="max_tokens",  # The name that litellm translates for every provider.
        params={k: v for k, v in settings.params.items() if k in FIELDS},
        slots=asyncio.Semaphore(most) if most else None,
        max_in_flight=most,
    )


async def check_models(upstreams: Mapping[str, Upstream]) -> None:
    """Ask litellm whether it can call the models of its backends.

    Raises:
        ConfigError: it cannot call one, or not cap its tokens.
    """
    for name, upstream in upstreams.items():
        backend = upstream.backend
        if isinstance(backend, LiteLLMBackend):
            try:
                said = await backend.process.ask({"check": backend.model})
            except ProcessLost as error:
                raise ConfigError(f"backends.{name}: {error}; its messages are above") from error
            if said["problem"]:
                raise ConfigError(f"backends.{name}.model: {said['problem']}")


def _installed() -> bool:
    try:
        return find_spec("litellm") is not None
    except ValueError:
        return False


def table_price(model: str) -> Price:
    """Return the price per token in litellm's own table.

    Raises:
        ValueError: it has none.
    """
    return litellm_table().price(model).price
