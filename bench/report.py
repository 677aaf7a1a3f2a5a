"""Visits as figures: medians over rounds, ratios within a round, the bars, and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.load import Visit
from bench.scenarios import Scenario
from bench.targets import Start

__all__ = ["bars", "summary", "table"]

REFERENCE = "reference"


def summary(
    scenarios: Sequence[Scenario],
    visits: Mapping[tuple[str, str], Sequence[Visit]],
    starts: Mapping[str, Sequence[Start]],
    memory: Mapping[str, float],
) -> dict[str, Any]:
    """Return all figures. Ratios compare visits of the same round, then the median is taken."""
    return {
        "scenarios": [
            {
                "name": scenario.name,
                "samples": scenario.samples,
                "targets": {name: _figures(scenario, name, visits) for name in scenario.targets},
            }
            for scenario in scenarios
        ],
        "processes": {
            name: {
                "start_cpu_s": round(median(s.cpu_s for s in found), 2),
                "start_wall_s": round(median(s.wall_s for s in found), 2),
                "rss_started_mb": round(median(s.rss_mb for s in found), 1),
                "rss_after_load_mb": round(memory[name], 1),
            }
            for name, found in starts.items()
            if name in memory
        },
    }


def _figures(
    scenario: Scenario, name: str, visits: Mapping[tuple[str, str], Sequence[Visit]]
) -> dict[str, Any]:
    own, direct = visits[scenario.name, name], visits[scenario.name, "direct"]
    others = visits[scenario.name, _reference(name)]
    cpu = [visit.cpu_us for visit in own]
    ratios = [a / b.cpu_us for a, b in zip(cpu, others, strict=True)]
    p50 = _median(own, lambda v: v.quantile_ms(0.5))
    return {
        "cpu_us_per_request": round(median(cpu), 1),
        "cpu_us_per_sample": round(median(cpu) / scenario.samples, 2),
        "ratio": round(median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "requests_per_s": round(_median(own, lambda v: v.requests / v.seconds), 1),
        "p50_ms": round(p50, 2),
        "added_p50_ms": round(p50 - _median(direct, lambda v: v.quantile_ms(0.5)), 2),
        "p99_ms": round(_median(own, lambda v: v.quantile_ms(0.99)), 2),
        "waited_for_a_core": round(_median(own, lambda v: v.spent.wait_s / v.seconds), 2),
        "requests": sum(v.requests for v in own),
    }


def _reference(name: str) -> str:
    """Return what a target is compared with: the reference with as many workers."""
    return "reference x2" if name.endswith(" x2") else REFERENCE


def _median(visits: Sequence[Visit], value: Callable[[Visit], float]) -> float:
    return median(value(visit) for visit in visits)


def bars(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every bar with what was reached."""
    found = {scenario["name"]: scenario for scenario in result["scenarios"]}
    said = []
    for name in ("N=1 1 kB c=32", "N=1 100 kB c=32", "N=1 1 kB SSE c=32", "N=1 100 kB SSE c=32"):
        ratio = found[name]["targets"]["samplewise"]["ratio"]
        said.append(_bar(f"{name}: times the reference, all on", ratio, 1.3))
    name = "N=1, 200 chunks, 1 kB SSE c=32"
    ratio = found[name]["targets"]["samplewise"]["ratio"]
    said.append(_bar(f"{name}: times the reference, all on", ratio, 1.2))
    for name in ("N=8 calls 1 kB c=4", "N=64 calls 1 kB c=4"):
        targets = found[name]["targets"]
        said.append(
            _bar(
                f"{name}: times the reference, policy and ledger off", targets["bare"]["ratio"], 1.2
            )
        )
        more = targets["samplewise"]["cpu_us_per_sample"] - targets["bare"]["cpu_us_per_sample"]
        said.append(_bar(f"{name}: us more per sample with them on", round(more, 1), 60.0))
    own = result["processes"]["samplewise"]
    said.append(_bar("memory after load, MB", own["rss_after_load_mb"], 120.0))
    said.append(_bar("ready after, s of processor time", own["start_cpu_s"], 2.0))
    return said


def _bar(what: str, value: float, most: float) -> dict[str, Any]:
    return {"what": what, "value": value, "most": most, "met": value <= most}


def table(result: Mapping[str, Any]) -> str:
    """Return the result as a Markdown table that reads well as plain text."""
    machine, load = result["machine"], result["load_average"]
    lines = [
        f"{result['date']}, {result['mode']}: {result['rounds']} rounds of "
        f"{result['seconds_per_visit']} s, load average {load[0]} to {load[1]}",
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}",
        "",
        "| request | target | CPU us/request | us/sample | x reference | (range) | req/s | p50 ms "
        "| added | p99 |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for scenario in result["scenarios"]:
        for name, row in scenario["targets"].items():
            low, high = row["ratio_range"]
            lines.append(
                f"| {scenario['name']} | {name} | {row['cpu_us_per_request']:,.0f} "
                f"| {row['cpu_us_per_sample']:,.1f} | {row['ratio']:.2f} | {low:.2f}-{high:.2f} "
                f"| {row['requests_per_s']:,.0f} | {row['p50_ms']:.1f} | {row['added_p50_ms']:.1f} "
                f"| {row['p99_ms']:.1f} |"
            )
    lines += ["", "| process | start CPU s | start wall s | RSS MB | RSS MB after load |"]
    lines.append("|---|--:|--:|--:|--:|")
    for name, row in result["processes"].items():
        lines.append(
            f"| {name} | {row['start_cpu_s']:.2f} | {row['start_wall_s']:.2f} "
            f"| {row['rss_started_mb']:.0f} | {row['rss_after_load_mb']:.0f} |"
        )
    lines += ["", "| bar | reached | at most | |", "|---|--:|--:|---|"]
    for bar in result["bars"]:
        met = "met" if bar["met"] else "MISSED"
        lines.append(f"| {bar['what']} | {bar['value']:g} | {bar['most']:g} | {met} |")
    return "\n".join(lines)
