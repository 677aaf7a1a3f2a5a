"""Providers that do not speak the OpenAI dialect, translated by the litellm library (an extra).

litellm costs milliseconds of processor time a call, so it runs on an event loop of its own, in a
thread of its own, and never holds the proxy's loop. It still shares the interpreter with it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import ModuleType
from typing import Any

import msgspec

from samplewise.policies.price import Price
from samplewise.proxy.backends.base import Broken, Call, SampleEvent, Started, Totals
from samplewise.proxy.backends.choices import ProtocolError, read_choice, read_usage
from samplewise.proxy.boundary import boundary
from samplewise.proxy.config_backends import LiteLLMBackendSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.upstreams import Upstream

__all__ = ["LiteLLMBackend", "litellm_upstream", "table_price"]


@dataclass(slots=True)
class LiteLLMBackend:
    """Calls one provider through litellm, unstreamed.

    A cancelled call closes its connection, but its tokens are not counted: it is billed at its
    worst case. Retries are ours alone, so litellm's are switched off.
    """

    library: ModuleType
    api_key: str | None = None
    api_base: str | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Send the call and yield what comes. Closing the iterator cancels it."""
        work = asyncio.run_coroutine_threadsafe(self._complete(call), self._running_loop())
        try:
            with boundary(_Refused, _Refused, TimeoutError):
                async with asyncio.timeout(call.timeout_s):
                    reply = await asyncio.wrap_future(work)
            yield Started()
            for event in _events(reply):
                yield event
        except TimeoutError:
            yield Broken("timeout", f"no answer within {call.timeout_s:g} s")
        except _Refused as refused:
            yield refused.broken
        except ProtocolError as error:
            yield Broken("protocol", str(error))
        finally:
            work.cancel()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._loop.run_forever, name="litellm", daemon=True
                )
                thread.start()
            return self._loop

    async def _complete(self, call: Call) -> dict[str, Any]:
        body = msgspec.json.decode(call.body)
        reply = await self.library.acompletion(
            **body,
            api_key=self.api_key,
            api_base=self.api_base,
            num_retries=0,
            max_retries=0,
            timeout=call.timeout_s,
            # A provider that does not know a field must not make the request fail, but dropping
            # `n` in silence is fine: the choices that come back are counted.
            drop_params=True,
            extra_headers={"X-Request-Id": call.id},
        )
        found: dict[str, Any] = reply.model_dump(mode="json")
        return found


class _Refused(Exception):
    """What litellm raised, as the end of a call."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        status = getattr(error, "status_code", None)
        # The text of the error may hold the provider's own words; it goes to the log alone.
        detail = f"{type(error).__name__}: {error}"[:300]
        if type(error).__name__ == "APIConnectionError":
            self.broken = Broken("connect", detail, sent=True)
        elif type(error).__name__ == "Timeout":
            self.broken = Broken("timeout", detail)
        else:
            self.broken = Broken(
                "status" if isinstance(status, int) else "crash",
                detail,
                status=status if isinstance(status, int) else None,
            )


def _events(reply: Mapping[str, Any]) -> list[SampleEvent]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ProtocolError("litellm gave no choices")
    events: list[SampleEvent] = [
        read_choice(encode({**choice, "index": i})) for i, choice in enumerate(choices)
    ]
    usage, warning = read_usage(encode(reply.get("usage")))
    head = {k: v for k, v in reply.items() if k not in ("choices", "usage") and v is not None}
    warnings = (warning,) if warning else ()
    return [*events, Totals(usage, str(reply.get("model") or ""), encode(head), warnings)]


def litellm_upstream(name: str, settings: LiteLLMBackendSettings) -> Upstream:
    """Import litellm and build an upstream of it.

    Raises:
        ConfigError: the extra is not installed, or the model has no price anywhere.
    """
    library = _import()
    price = settings.price.build() if settings.price else table_price(library, settings.model)
    if price is None:
        raise ConfigError(
            f"backends.{name}.price: litellm's table has no price for {settings.model!r}; write "
            "price: {input_usd_per_mtok: ..., output_usd_per_mtok: ...}"
        )
    most = settings.max_in_flight
    backend = LiteLLMBackend(
        library=library,
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        api_base=settings.api_base,
    )
    return Upstream(
        name=name,
        backend=backend,
        model=settings.model,
        price=price,
        timeout_s=settings.timeout_s,
        streams=False,
        # Most providers behind litellm refuse or drop n, so each sample is a call of its own.
        max_n=1,
        params=settings.params,
        slots=asyncio.Semaphore(most) if most else None,
        max_in_flight=most,
    )


def _import() -> ModuleType:
    # Without this, importing it fetches a price table over the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError:
        raise ConfigError(
            "a backend of type litellm needs the extra: pip install 'samplewise[litellm]'"
        ) from None
    litellm.suppress_debug_info = True
    module: ModuleType = litellm
    return module


def table_price(library: ModuleType, model: str) -> Price | None:
    """Return the price of a model by litellm's own table; None when it has none."""
    entry = library.model_cost.get(model) or library.model_cost.get(model.split("/", 1)[-1])
    if not entry or entry.get("input_cost_per_token") is None:
        return None
    cached = entry.get("cache_read_input_token_cost")
    return Price.per_mtok(
        _per_mtok(entry["input_cost_per_token"]),
        _per_mtok(entry.get("output_cost_per_token") or 0.0),
        None if cached is None else _per_mtok(cached),
    )


def _per_mtok(per_token: float) -> str:
    # Through the shortest decimal text: the table holds decimal prices, not binary fractions.
    return f"{Fraction(repr(per_token)) * 1_000_000}"
