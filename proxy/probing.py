"""What an upstream can do, found out by asking it: small calls, reserved and paid like any other.

Every call says something of one ability. What it does not show for certain stays unknown.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from samplewise.policies.evidence import Event, Progressed
from samplewise.policies.price import usd
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.backends.base import Call
from samplewise.proxy.backends.glance import Work
from samplewise.proxy.billing import CallFacts
from samplewise.proxy.boundary import boundary
from samplewise.proxy.calls import Slot, Trip
from samplewise.proxy.errors import StoreError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.base import Hold
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream

__all__ = ["PROBE_ROUTE", "Probe"]

PROBE_ROUTE = "(probe)"
"""The route under which probes stand in the ledger and in metrics."""

# Any model has something to say to it, and it is a prompt of the embedded model too.
_PROMPT = "4 7 8 8 > 24"
# More than a prompt of so many characters has with any chat template.
_PROMPT_TOKENS = 512
_TOKENS = 24
_LONG_TOKENS = 256
_TIMEOUT_S = 60.0
_REST_S = 10.0
_REST_STEP_S = 0.2
_SLOW_S = 1.0
_REFUSED = frozenset({400, 404, 405, 415, 422, 500, 501})
_DIGITS = re.compile(r"[-\s\d]+")
_log = structlog.get_logger("samplewise.probing")


class _Over(Exception):
    """Nothing more can be asked; the message says why."""


async def _unknown() -> Work | None:
    """Know nothing of what the server works on."""
    return None


@dataclass(slots=True)
class Probe:
    """Asks one upstream. `most` is the largest n to ask for, `context` the model's, in tokens.

    `work` reads what the server itself says that it is working on; None where it does not.
    """

    upstream: Upstream
    purse: Purse
    most: int = 8
    context: int | None = None
    work: Callable[[], Awaitable[Work | None]] = _unknown
    calls: int = 0

    async def run(self) -> Abilities:
        """Ask everything; what cannot be asked any more stays unknown. Raises nothing."""
        found = Abilities()
        try:
            plain = self._text(await self._ask(temperature=0))
            if plain is None:
                raise _Over("it does not answer a plain request")
            found = replace(found, n=await self._n())
            found = replace(found, logprobs=await self._logprobs())
            found = replace(found, seed=await self._seed())
            found = replace(found, stop=await self._stop(plain))
            found = replace(found, continuation=await self._continuation(plain))
            found = replace(found, stream_usage=await self._stream_usage())
            found = replace(found, structured=await self._structured(plain))
            found = replace(found, aborts=await self._aborts())
        except (_Over, StoreError) as over:
            _log.warning("probe ended early", backend=self.upstream.name, reason=str(over))
        await self.purse.close()
        shown = {name: value for name, value in found.named() if value is not None}
        _log.info(
            "probed",
            backend=self.upstream.name,
            abilities=shown,
            cost_usd=usd(self.purse.spent),
        )
        return found

    async def _n(self) -> bool | None:
        facts = await self._ask(self.most, temperature=1, max_tokens=1)
        if _refused(facts):
            self.upstream.learn_n(1)
            return False
        choices = len(facts.dones)
        if 0 < choices < self.most:
            self.upstream.learn_n(choices)
        return choices > 1 if choices else None

    async def _logprobs(self) -> bool | None:
        most = self.upstream.max_top_logprobs
        facts = await self._ask(logprobs=True, top_logprobs=most, max_tokens=1)
        if _refused(facts) and most:
            facts = await self._ask(logprobs=True, max_tokens=1)
            if not _refused(facts):
                # It has log-probabilities, and refuses the likeliest tokens, or so many of them.
                self.upstream.max_top_logprobs = 0
        if _refused(facts):
            return False
        return facts.dones[0].logprobs is not None if facts.dones else None

    async def _seed(self) -> bool | None:
        same = [self._text(await self._ask(temperature=1, seed=7)) for _ in range(2)]
        if None in same:
            return None
        if same[0] != same[1]:
            return False
        other = [self._text(await self._ask(temperature=1, seed=seed)) for seed in (8, 9)]
        # A model that always says the same shows nothing.
        return True if any(text not in (None, same[0]) for text in other) else None

    async def _stop(self, plain: str) -> bool | None:
        places = range(len(plain) // 3, len(plain))
        # Not the first character: servers differ in how they end an empty answer.
        new = (i for i in places if i and not plain[i].isspace() and plain.find(plain[i]) == i)
        at = next(new, None)
        if at is None:
            return None
        stop = plain[at]
        facts = await self._ask(temperature=0, stop=[stop])
        text = self._text(facts)
        if text is None:
            return False if _refused(facts) else None
        return stop not in text

    async def _continuation(self, plain: str) -> bool | None:
        plain = plain.strip()
        middle = plain.find(" ", len(plain) // 3)
        middle = len(plain) // 2 if middle < 0 else middle
        begun, rest = plain[:middle], plain[middle:].strip()
        if not begun or not rest:
            return None
        facts = await self._ask(
            messages=[_user(), {"role": "assistant", "content": begun}],
            temperature=0,
            continue_final_message=True,
            add_generation_prompt=False,
        )
        text = self._text(facts)
        if text is None:
            return False if _refused(facts) else None
        said = text.strip()
        if said.startswith(rest) or rest.startswith(said):
            return bool(said) or None
        # It began anew instead of going on.
        return False if said.startswith(begun) else None

    async def _stream_usage(self) -> bool | None:
        if not self.upstream.streams or self.upstream.stream_options is None:
            return None
        facts = await self._ask(stream=True, max_tokens=4)
        if _refused(facts):
            return False
        return None if facts.totals is None else facts.totals.usage is not None

    async def _structured(self, plain: str) -> bool | None:
        schema = {"name": "number", "schema": {"type": "integer"}, "strict": True}
        facts = await self._ask(
            temperature=0, response_format={"type": "json_schema", "json_schema": schema}
        )
        text = self._text(facts)
        if text is None:
            return False if _refused(facts) else None
        if not _DIGITS.fullmatch(text):
            return False
        return None if _DIGITS.fullmatch(plain) else True

    async def _aborts(self) -> bool | None:
        """Leave a long sample and see whether the server, idle but for it, goes on."""
        before = await self.work()
        if before is None or before.running:
            return None
        n, tokens = min(self.most, self.upstream.max_n or self.most), _LONG_TOKENS
        if self.context is not None:
            tokens = min(tokens, self.context // 2)
        await self._ask(n, stream=True, leave=True, max_tokens=tokens, ignore_eos=True)
        return await self._rest(before.made, n * tokens)

    async def _rest(self, made_before: int, asked: int) -> bool | None:
        """Watch the server come to rest: did it make all the tokens that nobody waits for?"""
        clock = asyncio.get_running_loop().time
        left, seen = clock(), await self.work()
        while seen is not None and clock() < left + _REST_S:
            await asyncio.sleep(_REST_STEP_S)
            last, seen = seen, await self.work()
            # Twice the same: counters may lag behind by a step of the engine.
            if seen == last and not seen.running:
                if seen.made - made_before < asked:
                    return True
                # A model so fast that it was done before the connection's end shows nothing.
                return False if clock() > left + _SLOW_S else None
        return None if seen is None else False

    def _text(self, facts: CallFacts) -> str | None:
        return facts.dones[0].text if facts.dones else None

    async def _ask(
        self,
        n: int = 1,
        *,
        stream: bool = False,
        leave: bool = False,
        max_tokens: int = _TOKENS,
        **fields: Any,
    ) -> CallFacts:
        """Send one call and return what came; with `leave`, close it at the first token.

        Raises:
            _Over: the limits have no room for it, or the upstream cannot be reached.
            StoreError: the ledger cannot be reached.
        """
        holds = self._holds(n, max_tokens)
        if await self.purse.reserve([(hold,) for hold in holds]) < n:
            raise _Over("the limits have no room for its calls")
        facts = CallFacts(stream, max_tokens, _PROMPT_TOKENS)
        begun = asyncio.Event()

        def emit(event: Event) -> None:
            if isinstance(event, Progressed):
                begun.set()

        trip = Trip(
            upstream=self.upstream,
            slots=tuple(Slot(hold.id, hold.index, "probe") for hold in holds),
            holds=holds,
            call=Call(
                id=holds[0].call_id,
                body=self._body(n, stream, max_tokens, fields),
                n=n,
                stream=stream,
                timeout_s=min(_TIMEOUT_S, self.upstream.timeout_s),
                sending=facts.note_sent,
            ),
            facts=facts,
            purse=self.purse,
            emit=emit,
            known_prompt=lambda: None,
            choose=self.upstream.pool.pick,
            progress_tokens=1 if leave else 0,
        )
        with boundary(_crashed, StoreError):
            await (_left(trip, begun) if leave else trip.run())
        if facts.broken is not None and not facts.broken.sent:
            raise _Over(facts.broken.detail)
        return facts

    def _holds(self, n: int, max_tokens: int) -> tuple[Hold, ...]:
        call = f"{self.purse.request_id}-{self.calls}"
        self.calls += 1
        price = self.upstream.price
        return tuple(
            Hold(
                id=f"{call}.{i}",
                call_id=call,
                index=i,
                backend=self.upstream.name,
                model=self.upstream.model,
                purpose="probe",
                nano=price.worst_nano(0 if i else _PROMPT_TOKENS, max_tokens),
                tokens=max_tokens + (0 if i else _PROMPT_TOKENS),
                price_version=price.version,
            )
            for i in range(n)
        )

    def _body(self, n: int, stream: bool, max_tokens: int, fields: Mapping[str, Any]) -> bytes:
        upstream = self.upstream
        fields = {
            "model": upstream.model,
            "messages": [_user()],
            **upstream.params,
            (upstream.token_field or "max_tokens"): max_tokens,
            **fields,
        }
        if "seed" in fields:
            fields[upstream.seed_field] = fields.pop("seed")
        if n > 1:
            fields["n"] = n
        if stream:
            fields |= {"stream": True}
            if upstream.stream_options:
                fields["stream_options"] = upstream.stream_options
        return encode(fields)


def _user() -> dict[str, str]:
    return {"role": "user", "content": _PROMPT}


def _refused(facts: CallFacts) -> bool:
    """Say whether the upstream has said no, which is different from being out of order."""
    broken = facts.broken
    return broken is not None and broken.status in _REFUSED


async def _left(trip: Trip, begun: asyncio.Event) -> None:
    """Run a call until its first token, then leave."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(trip.run())
        running.add_done_callback(lambda _: begun.set())
        await begun.wait()
        running.cancel()


def _crashed(error: Exception) -> Exception:
    return _Over(f"{type(error).__name__}: {error}"[:200])
