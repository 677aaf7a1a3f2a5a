"""Every Prometheus metric, defined once. Labels hold configured names and fixed words only."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from samplewise.policies.evidence import Evidence
from samplewise.policies.price import NANO
from samplewise.proxy.billing import CallFacts
from samplewise.proxy.calls import Trip
from samplewise.proxy.job import Answer
from samplewise.proxy.ledger.base import Balance, Hold, Settlement
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Ended, Status, Verdict

__all__ = ["Metrics"]

# OpenTelemetry's buckets for GenAI durations, and two more: several samples take their time.
_SECONDS = tuple(round(0.01 * 2**i, 2) for i in range(16))
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOLD_EVERY_S = 0.1
_OUTCOMES = {Status.PASS: "passed", Status.FAIL: "failed"}
_RATIOS = tuple(i / 10 for i in range(1, 11))


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self, routes: Iterable[str], models: Mapping[str, str]) -> None:
        """Define every metric; the main series of each route exist from the start.

        `models` gives the configured model of each backend, for the `model` label.
        """
        self._models: Mapping[str, str] = {}
        self.registry = CollectorRegistry()
        self._children: dict[tuple[MetricWrapperBase, tuple[str, ...]], MetricWrapperBase] = {}
        self._told_at: dict[str, float] = {}
        self._define_requests()
        self._define_samples()
        self._define_upstreams()
        self._define_store()
        self.adopt(routes, models)

    def adopt(self, routes: Iterable[str], models: Mapping[str, str]) -> None:
        """Take the names of another configuration; those of requests that still run stay known."""
        self._models = {**self._models, **models}
        for route in routes:
            for outcome in ("verified", "agreed", "best_effort", "unverified"):
                self._of(self.requests, route, "chat", outcome)
            self._of(self.disconnects, route)

    def _define_requests(self) -> None:
        self.requests = self._counter(
            "requests", "Requests by how they ended.", "route", "endpoint", "outcome"
        )
        self.chosen = self._counter(
            "chosen_policies", "Answers of policies that clients chose by name.", "route", "policy"
        )
        self.duration = self._histogram(
            "request_duration_seconds", "Time to the whole answer.", _SECONDS, "route", "stream"
        )
        self.first_byte = self._histogram(
            "time_to_first_byte_seconds", "Time to the first byte sent.", _SECONDS, "route"
        )
        self.overhead = self._histogram(
            "overhead_seconds", "Own time, without waiting for others.", _SECONDS, "route"
        )
        self.disconnects = self._counter(
            "client_disconnects", "Clients that left before their answer.", "route"
        )
        self.mirrors = self._counter(
            "mirrored_requests",
            "Requests that another route answered too, by what its answer was.",
            "route",
            "mirror",
            "result",
        )
        self.mirror_cost = self._counter(
            "mirror_cost_usd", "Dollars that these second answers cost.", "route", "mirror"
        )
        self.coalesced = self._counter(
            "coalesced_retries", "Client retries that joined a run instead of buying one.", "route"
        )
        self.recordings = self._counter(
            "recorded_requests", "Requests written to recordings, or dropped.", "route", "result"
        )

    def _define_samples(self) -> None:
        self.samples = self._counter(
            "samples", "Samples by what became of them.", "route", "model", "outcome"
        )
        self.per_request = self._histogram(
            "samples_per_request", "Samples drawn for one request.", _COUNTS, "route"
        )
        self.accepted = self._histogram(
            "accepted_sample_index", "Draw number of the returned sample, from 1.", _COUNTS, "route"
        )
        self.tokens = self._counter("tokens", "Tokens billed.", "route", "model", "type")
        self.cost = self._counter("cost_usd", "Dollars settled.", "route", "model", "kind")
        self.saved = self._counter(
            "cost_usd_saved",
            "Dollars that samples left undrawn would have cost, at the mean of those drawn.",
            "route",
        )
        self.agreement = self._histogram(
            "vote_agreement_ratio",
            "Share of voters that gave the leading answer.",
            _RATIOS,
            "route",
        )
        self.verifier_seconds = self._histogram(
            "verifier_duration_seconds", "Time of one verification.", _SECONDS, "verifier"
        )
        self.verifier_results = self._counter(
            "verifier_results", "Verdicts by what they say.", "verifier", "result"
        )

    def _define_upstreams(self) -> None:
        self.upstream_requests = self._counter(
            "upstream_requests", "Calls by how they ended.", "upstream", "status"
        )
        self.upstream_seconds = self._histogram(
            "upstream_duration_seconds", "Time of one call.", _SECONDS, "upstream"
        )
        self.upstream_inflight = self._gauge("upstream_inflight", "Calls in flight.", "upstream")
        self.upstream_retries = self._counter(
            "upstream_retries",
            "Calls that repeat lost ones, sent or held back by the retry budget.",
            "upstream",
            "result",
        )
        self.upstream_ejections = self._counter(
            "upstream_ejections", "How often a host was put aside.", "upstream"
        )
        self.upstream_hosts = self._gauge(
            "upstream_hosts", "Hosts by the state of their circuit.", "upstream", "state"
        )
        self.retry_budget = self._gauge(
            "upstream_retry_budget", "Calls that may be repeated now.", "upstream"
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        full = f"samplewise_{name}"
        return Gauge(full, text, labels, registry=self.registry, multiprocess_mode="livesum")

    def _define_store(self) -> None:
        self.unmetered = self._counter(
            "unmetered_samples", "Samples granted while the ledger could not be reached.", "route"
        )
        self.unmetered_usd = self._counter(
            "unmetered_cost_usd", "Dollars spent that are in no limit and in no ledger.", "route"
        )
        self.serving = Gauge(
            "samplewise_serving_unmetered",
            "1 while the ledger cannot be reached and requests are answered all the same.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"samplewise_{name}_total", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        full = f"samplewise_{name}"
        return Histogram(full, text, labels, registry=self.registry, buckets=tuple(buckets))

    def _of(self, metric: MetricWrapperBase, *labels: str) -> MetricWrapperBase:
        """Return a bound child; binding costs several times as much as counting."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _add(self, counter: Counter, amount: float, *labels: str) -> None:
        child = self._of(counter, *labels)
        assert isinstance(child, Counter)
        child.inc(amount)

    def _observe(self, histogram: Histogram, value: float, *labels: str) -> None:
        child = self._of(histogram, *labels)
        assert isinstance(child, Histogram)
        child.observe(value)

    def recorded(self, route: str, result: str) -> None:
        """Count a request that was written down, or dropped because that could not be done."""
        self._add(self.recordings, 1, route, result)

    def answered(self, answer: Answer, waited_s: float) -> None:
        """Count a request that got its answer."""
        route, evidence = answer.job.route.name, answer.evidence
        self._add(self.requests, 1, route, answer.job.request.endpoint, answer.outcome.value)
        if answer.job.chosen_name:
            self._add(self.chosen, 1, route, answer.job.chosen_name)
        stream = "true" if answer.job.request.stream else "false"
        self._observe(self.duration, answer.seconds, route, stream)
        self._observe(self.overhead, max(0.0, answer.seconds - waited_s), route)
        self._observe(self.per_request, evidence.drawn, route)
        self._observe(self.accepted, answer.chosen[0].index + 1, route)
        if evidence.votes.total:
            self._observe(self.agreement, evidence.votes.lead / evidence.votes.total, route)
        left = answer.job.policy.needs.max_samples - evidence.drawn
        if left > 0 and evidence.drawn:
            saved = answer.costs["generation"] / evidence.drawn * left / NANO
            self._add(self.saved, saved, route)

    def relayed(self, route: str, seconds: float) -> None:
        """Count a request for embeddings that was answered."""
        self._add(self.requests, 1, route, "embeddings", "unverified")
        self._observe(self.duration, seconds, route, "false")

    def refused(self, route: str, outcome: str, endpoint: str = "chat") -> None:
        """Count a request that ended without an answer."""
        self._add(self.requests, 1, route, endpoint, outcome)
        if outcome == "cancelled":
            self._add(self.disconnects, 1, route)

    def joined(self, route: str) -> None:
        """Count a repeated request that was answered by the run of an earlier one."""
        self._add(self.coalesced, 1, route)

    def mirrored(self, route: str, mirror: str, result: str, nano: int) -> None:
        """Count a request that another route was to answer too, and what that cost."""
        self._add(self.mirrors, 1, route, mirror, result)
        if nano:
            self._add(self.mirror_cost, nano / NANO, route, mirror)

    def first_byte_sent(self, route: str, seconds: float) -> None:
        """Count how long a streamed answer took to begin."""
        self._observe(self.first_byte, seconds, route)

    def sampled(self, route: str, evidence: Evidence) -> None:
        """Count what became of every sample of a run."""
        found: dict[tuple[str, str], int] = defaultdict(int)
        for sample in evidence.samples.values():
            judgement = evidence.judgements.get(sample.id)
            status = judgement.status if judgement else Status.NONE
            outcome = _OUTCOMES.get(status, "unused")
            if sample.ended is Ended.CUT:
                outcome = "cancelled"
            found[sample.backend, outcome] += 1
        for failed in evidence.failed.values():
            found[failed.backend, "error"] += 1
        for (backend, outcome), samples in found.items():
            self._add(self.samples, samples, route, self._models[backend], outcome)

    def posted_to(self, route: str) -> Callable[[Iterable[tuple[Hold, Settlement]]], None]:
        """Return a function that counts what the ledger posts for a route."""

        def posted(rows: Iterable[tuple[Hold, Settlement]]) -> None:
            # Rows of one burst are mostly of one kind: adding up costs less than counting each.
            nano: dict[tuple[str, str], int] = defaultdict(int)
            tokens: dict[tuple[str, str], int] = defaultdict(int)
            for hold, row in rows:
                nano[hold.model, "verifier" if hold.purpose == "verify" else "generation"] += (
                    row.nano
                )
                usage = row.usage
                tokens[hold.model, "input"] += usage.prompt - usage.cached
                tokens[hold.model, "cached_input"] += usage.cached
                tokens[hold.model, "output"] += usage.completion
                tokens[hold.model, "reasoning"] += usage.reasoning
            for (model, kind), amount in nano.items():
                if amount:
                    self._add(self.cost, amount / NANO, route, model, kind)
            for (model, kind), amount in tokens.items():
                if amount:
                    self._add(self.tokens, amount, route, model, kind)

        return posted

    def unmetered_samples(self, route: str, samples: int) -> None:
        """Count samples that were granted without the ledger."""
        self._add(self.unmetered, samples, route)

    def unmetered_cost(self, route: str, nano: int) -> None:
        """Count nano-dollars that no ledger has."""
        self._add(self.unmetered_usd, nano / NANO, route)

    def serving_unmetered(self, now: bool) -> None:
        """Say whether requests are answered while the ledger cannot be reached."""
        self.serving.set(int(now))

    def verdict(self, verdict: Verdict) -> None:
        """Count one verification."""
        self._add(self.verifier_results, 1, verdict.verifier, verdict.status.value)
        self._observe(self.verifier_seconds, verdict.ms / 1000, verdict.verifier)

    def call_started(self, trip: Trip) -> None:
        """Count an upstream call in."""
        self._gauge_of(self.upstream_inflight, trip.upstream.name).inc()

    def _gauge_of(self, gauge: Gauge, *labels: str) -> Gauge:
        child = self._of(gauge, *labels)
        assert isinstance(child, Gauge)
        return child

    def call_ended(self, trip: Trip) -> None:
        """Count one upstream call."""
        self._gauge_of(self.upstream_inflight, trip.upstream.name).dec()
        self.called(trip.upstream, trip.facts, trip.seconds)

    def called(self, upstream: Upstream, facts: CallFacts, seconds: float) -> None:
        """Count how a call ended that was sent to a host, for a sample or a verdict."""
        name, broken = upstream.name, facts.broken
        self.pooled(upstream)
        if broken is not None and broken.status is not None and broken.sent:
            status = "429" if broken.status == 429 else f"{broken.status // 100}xx"
        elif broken is not None:
            status = broken.reason
        else:
            status = "2xx" if facts.totals is not None else "cancelled"
        self._add(self.upstream_requests, 1, name, status)
        self._observe(self.upstream_seconds, seconds, name)

    def repeated(self, upstream: str, calls: int, sent: bool) -> None:
        """Count calls that repeat lost ones, or would have."""
        self._add(self.upstream_retries, calls, upstream, "sent" if sent else "held_back")

    def pooled(self, upstream: Upstream) -> None:
        """Take over the state of an upstream's hosts."""
        name, pool = upstream.name, upstream.pool
        now = pool.clock()
        # It changes with every call and fades by itself: nobody needs to know it more often.
        if pool.changed or now - self._told_at.get(name, -1.0) > _TOLD_EVERY_S:
            self._told_at[name] = now
            self._gauge_of(self.retry_budget, name).set(pool.retries.left(now))
        if not pool.changed:
            return
        pool.changed = False
        for phase, hosts in pool.phases().items():
            self._gauge_of(self.upstream_hosts, name, phase).set(hosts)
        self._add(self.upstream_ejections, pool.ejected, name)
        pool.ejected = 0

    def render(self, balances: Sequence[Balance]) -> bytes:
        """Return the text exposition; with several workers, of all of them together."""
        counted: Collector = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            counted = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        return generate_latest(_Page((counted, _Budgets(balances))))


@dataclass(frozen=True, slots=True, eq=False)
class _Page(Collector):
    """What one scrape returns, without the times at which series were created.

    Those would double the series for nothing; filtered here because the client library can only
    leave them out for a whole process, and only when asked before its first import.
    """

    parts: tuple[Collector, ...]

    def collect(self) -> Iterator[Metric]:
        for part in self.parts:
            for metric in part.collect():
                metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
                yield metric


@dataclass(frozen=True, slots=True, eq=False)
class _Budgets(Collector):
    """Gauges of accounts, read from the ledger for one scrape: right for any number of workers."""

    balances: Sequence[Balance]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["scope", "name", "window"]
        limit = GaugeMetricFamily("samplewise_budget_limit_usd", "Limit in dollars.", labels=labels)
        used = GaugeMetricFamily(
            "samplewise_budget_used_ratio",
            "Spent and reserved, as a share of the limit.",
            labels=labels,
        )
        spent = GaugeMetricFamily("samplewise_budget_spent_usd", "Dollars spent.", labels=labels)
        held = GaugeMetricFamily("samplewise_budget_reserved_usd", "Dollars held.", labels=labels)
        overrun = GaugeMetricFamily(
            "samplewise_budget_overrun_usd", "Settled above what was held.", labels=labels
        )
        for balance in self.balances:
            account = balance.account
            names = [account.scope.value, account.name, account.window.value]
            taken = (balance.spent.nano or 0) + (balance.reserved.nano or 0)
            spent.add_metric(names, (balance.spent.nano or 0) / NANO)
            held.add_metric(names, (balance.reserved.nano or 0) / NANO)
            overrun.add_metric(names, balance.overrun_nano / NANO)
            if account.limit.nano is not None:
                limit.add_metric(names, account.limit.nano / NANO)
                used.add_metric(names, taken / account.limit.nano if account.limit.nano else 1.0)
        yield from (limit, used, spent, held, overrun)
