"""What the rows of one upstream call really cost. Pure: facts in, settlements out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from samplewise.policies.price import Price, Usage
from samplewise.proxy.backends.base import Broken, Done, Totals, Trace
from samplewise.proxy.ledger.base import Hold, Settlement, State, UsageSource

__all__ = ["CallFacts", "settlements", "split"]


@dataclass(slots=True)
class CallFacts:
    """All that came of one call, by choice number; filled while its events come in.

    `images` are those in the prompt, `prompt_bound` is the most prompt tokens it can have had,
    `prompt_known` what the upstream has reported for the same prompt before. `sent` turns True when
    bytes may have reached the upstream.
    """

    stream: bool
    max_tokens: int
    prompt_bound: int
    images: int = 0
    prompt_known: int | None = None
    sent: bool = False
    traces: dict[int, Trace] = field(default_factory=dict)
    dones: dict[int, Done] = field(default_factory=dict)
    totals: Totals | None = None
    broken: Broken | None = None

    def note_sent(self) -> None:
        """Note that bytes may have reached the upstream from now on."""
        self.sent = True

    def images_of(self, choice: int) -> int:
        """Return how many images a row pays for: as the prompt, its call's first pays for all."""
        return self.images if choice == 0 else 0

    def counted(self, choice: int) -> int:
        """Return the tokens counted of one choice."""
        done = self.dones.get(choice)
        trace = self.traces.get(choice)
        return max(done.tokens if done else 0, trace.tokens if trace else 0)

    def come(self, choice: int) -> int:
        """Return the tokens known of one choice so far: counted, or what the upstream says."""
        trace = self.traces.get(choice)
        reported = trace.reported.completion if trace and trace.reported else 0
        return max(self.counted(choice), reported)


def settlements(holds: Sequence[Hold], price: Price, facts: CallFacts) -> list[Settlement]:
    """Return one settlement per hold, in their order; hold i paid for choice i.

    The prompt is billed on the first row that came to anything. Usage that the upstream reports is
    billed as reported; without it, what was counted; without that, the most it can have been.
    """
    broken = facts.broken
    if not facts.sent or (broken is not None and not broken.sent):
        return [Settlement(hold.id, 0, state=State.RELEASED) for hold in holds]
    if facts.totals is not None and facts.totals.usage is not None:
        return _as_reported(holds, price, facts, facts.totals.usage)
    if broken is not None and broken.status is not None:
        # An answer that is an error: the upstream said itself that there is no completion.
        return [Settlement(hold.id, 0) for hold in holds]
    if facts.stream and (facts.traces or not facts.dones):
        return _as_counted(holds, price, facts)
    if facts.dones:
        # Whole answers whose tokens nobody counted, also from a server that was to stream.
        return _at_most(holds, price, facts)
    return [_worst(hold, facts.prompt_bound if i == 0 else 0) for i, hold in enumerate(holds)]


def _worst(hold: Hold, prompt: int) -> Settlement:
    """Return a row as it was held, tokens too: limits in tokens must hold as well."""
    usage = Usage(min(prompt, hold.tokens), 0, max(0, hold.tokens - prompt))
    return Settlement(hold.id, hold.nano, usage, UsageSource.WORST_CASE)


def _as_reported(
    holds: Sequence[Hold], price: Price, facts: CallFacts, usage: Usage
) -> list[Settlement]:
    if len(holds) == 1:
        nano = price.cost_nano(usage, facts.images_of(0))
        return [Settlement(holds[0].id, nano, usage, UsageSource.PROVIDER)]
    weights = [facts.counted(i) or _bytes(facts.dones.get(i)) for i in range(len(holds))]
    completions = split(usage.completion, weights)
    reasonings = split(usage.reasoning, completions)
    rows = []
    for i, hold in enumerate(holds):
        prompt, cached = (usage.prompt, usage.cached) if i == 0 else (0, 0)
        row = Usage(prompt, cached, completions[i], reasonings[i])
        nano = price.cost_nano(row, facts.images_of(i))
        rows.append(Settlement(hold.id, nano, row, UsageSource.PROVIDER))
    return rows


def _as_counted(holds: Sequence[Hold], price: Price, facts: CallFacts) -> list[Settlement]:
    rows = []
    for i, hold in enumerate(holds):
        trace = facts.traces.get(i)
        if trace is not None and trace.reported is not None:
            nano = price.cost_nano(trace.reported, facts.images_of(i))
            rows.append(Settlement(hold.id, nano, trace.reported, UsageSource.PROVIDER))
            continue
        row = Usage(_prompt(facts) if i == 0 else 0, 0, facts.counted(i))
        nano = price.most_nano(row, facts.images_of(i))
        rows.append(Settlement(hold.id, nano, row, UsageSource.COUNTED))
    return rows


def _at_most(holds: Sequence[Hold], price: Price, facts: CallFacts) -> list[Settlement]:
    # No tokenizer makes more tokens of a text than it has bytes.
    rows = []
    for i, hold in enumerate(holds):
        most = min(facts.max_tokens, _bytes(facts.dones.get(i)))
        row = Usage(_prompt(facts) if i == 0 else 0, 0, most)
        nano = price.most_nano(row, facts.images_of(i))
        rows.append(Settlement(hold.id, nano, row, UsageSource.WORST_CASE))
    return rows


def _prompt(facts: CallFacts) -> int:
    return facts.prompt_bound if facts.prompt_known is None else facts.prompt_known


def _bytes(done: Done | None) -> int:
    return len(done.raw) if done else 0


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number by weights; the parts add up to it exactly, none is negative."""
    whole = sum(weights)
    if not whole:
        return [total] + [0] * (len(weights) - 1)
    parts = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in remainders[: total - sum(parts)]:
        parts[i] += 1
    return parts
