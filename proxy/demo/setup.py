"""What the demo asks and of whom: two families of problems, the routes, the policies compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from samplewise.models.arithmetic import held_out_expressions
from samplewise.models.countdown import held_out_puzzles
from samplewise.models.problems import Problem
from samplewise.proxy.embedded import MODEL

__all__ = ["CURL_PROBLEM", "POLICIES", "PRICE", "Policy", "configuration", "families"]

CURL_PROBLEM = "4 7 8 8 > 24"
PRICE = {"input_usd_per_mtok": 0.10, "output_usd_per_mtok": 0.40}
"""A made-up price, that of a small hosted model, so that costs can be compared."""

_FAMILY = """
  {0}-single: {{backends: [tiny], max_tokens: 64, policy: single}}
  {0}-majority: {{backends: [tiny], max_tokens: 64, answers: {0}-read,
    policy: {{type: majority_vote, samples: 16}}}}
  {0}-adaptive: {{backends: [tiny], max_tokens: 64, answers: {0}-read,
    policy: {{type: adaptive_vote, rule: margin, margin: 3, max_samples: 24}}}}
  {0}-best: {{backends: [tiny], max_tokens: 64, verifiers: [{0}],
    policy: {{type: best_of_n, samples: 16}}}}
  {0}: {{backends: [tiny], max_tokens: 64, verifiers: [{0}],
    policy: {{type: first_pass, max_samples: 64, waves: [4, 8, 16, 36]}}}}
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """One line of the table: `suffix` completes the route's name, `fields` go into the request."""

    name: str
    suffix: str
    fields: dict[str, Any] = field(default_factory=dict)


POLICIES = (
    Policy("single, greedy", "-single", {"temperature": 0}),
    Policy("single, sampled", "-single"),
    Policy("majority_vote 16", "-majority"),
    Policy("adaptive_vote to 24", "-adaptive"),
    Policy("best_of_n 16", "-best"),
    Policy("first_pass 4+8+16+36", ""),
)


def configuration(upstream: str, port: int, store: str) -> str:
    """Return the proxy's configuration file."""
    prices = ", ".join(f"{name}: {value}" for name, value in PRICE.items())
    return (
        # Nothing is asked any more when the demo stops its proxy, so there is nothing to drain.
        f"server: {{host: 127.0.0.1, port: {port}, drain_s: 0}}\n"
        f'store: "sqlite:///{store}"\n'
        "backends:\n"
        f'  tiny: {{type: openai, base_url: "{upstream}/v1", model: {MODEL},\n'
        f"    price: {{{prices}}}}}\n"
        "verifiers:\n"
        "  countdown: {type: countdown}\n"
        "  countdown-read: {type: countdown, judge: false}\n"
        "  arithmetic: {type: arithmetic}\n"
        "  arithmetic-read: {type: arithmetic, judge: false}\n"
        "routes:" + "".join(_FAMILY.format(name) for name in ("countdown", "arithmetic"))
    )


def families(problems: int) -> dict[str, Sequence[Problem]]:
    """Return so many problems of each family that the model was not trained on."""
    return {
        "countdown": held_out_puzzles(problems),
        "arithmetic": held_out_expressions(problems, size=5),
    }
