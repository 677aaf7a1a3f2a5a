"""Measured error rates of a route's verifiers: the form of the file, and what policies make of it.

Counts are stored, not rates: intervals and expectations follow from them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from samplewise.policies.prior import Prior, Tally, share
from samplewise.proxy.errors import ConfigError

__all__ = ["Accuracy", "Calibration", "Counts", "fit", "load_prior", "write"]

_LARGEST_FILE = 1_000_000
# Fewer prompts, or prompts with one sample each, say nothing of how much prompts differ.
_LEAST_PROMPTS = 20
_ATOMS = 128
_STEPS = 4_000
_REACH = 60.0


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Verdicts on samples of one kind."""

    passed: int = 0
    failed: int = 0
    other: int = 0
    errors: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        if min(self.passed, self.failed, self.other, self.errors) < 0:
            raise ValueError("a count is below 0")

    @property
    def tally(self) -> Tally:
        """The counts without errors."""
        return Tally(self.passed, self.failed, self.other)


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often samples are right, over prompts: a Beta distribution, fitted by its moments."""

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        """Refuse what is no Beta distribution."""
        if not (0 < self.alpha < math.inf and 0 < self.beta < math.inf):
            raise ValueError("alpha and beta must be positive")


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file. `verifiers` are the names that judged; `accuracy` is None with too few samples."""

    route: str
    verifiers: list[str]
    prompts: int
    right: Counts
    wrong: Counts
    accuracy: Accuracy | None = None

    def prior(self) -> Prior:
        """Return what policies use."""
        if self.accuracy is not None:
            return Prior(self.right.tally, self.wrong.tally, _atoms(self.accuracy))
        right, wrong = self.right.tally.total, self.wrong.tally.total
        return Prior(self.right.tally, self.wrong.tally, ((share(right, right + wrong), 1.0),))


def load_prior(path: str, verifiers: Sequence[str], where: str) -> Prior:
    """Read a file for a route that has these verifiers; `where` names the setting in messages.

    Raises:
        ConfigError: it cannot be read, or was measured with other verifiers.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE)
        found = msgspec.json.decode(data, type=Calibration)
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where}: {path} is not what `samplewise calibrate` writes: {error}"
        ) from None
    if sorted(found.verifiers) != sorted(verifiers):
        raise ConfigError(
            f"{where}: {path} was measured with the verifiers {', '.join(found.verifiers)}, the "
            f"route has {', '.join(verifiers)}: run `samplewise calibrate` again"
        )
    return found.prior()


def write(calibration: Calibration, path: Path) -> None:
    """Write a file, whole or not at all; what is no plain file (a pipe, a device) is written to.

    Raises:
        OSError: it cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(calibration), indent=2)
    path = path.resolve()  # not the link is replaced, but what it leads to
    if path.exists() and not path.is_file():
        path.write_bytes(text + b"\n")
        return
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        part.write_bytes(text + b"\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def fit(prompts: Sequence[tuple[int, int]]) -> Accuracy | None:
    """Fit how accuracy is spread over prompts; each has right samples and samples in all.

    Unbiased moments: pairs of samples of one prompt. None with too few prompts of two samples or
    more, and when prompts differ no more than chance would have it.
    """
    several = [(right, n) for right, n in prompts if n > 1]
    if len(several) < _LEAST_PROMPTS:
        return None
    mean = sum(right for right, _ in several) / sum(n for _, n in several)
    pairs = sum(n * (n - 1) for _, n in several)
    variance = sum(right * (right - 1) for right, _ in several) / pairs - mean * mean
    if not 0 < variance < mean * (1 - mean):
        return None
    size = mean * (1 - mean) / variance - 1
    return Accuracy(alpha=mean * size, beta=(1 - mean) * size)


def _atoms(accuracy: Accuracy) -> tuple[tuple[float, float], ...]:
    """Return a Beta distribution as points of about the same weight, each at its mean.

    Over the logit of r, where the density is smooth however small alpha and beta are.
    """
    a, b = accuracy.alpha, accuracy.beta
    low, high = -_REACH / min(a, 1.0), _REACH / min(b, 1.0)
    step = (high - low) / _STEPS
    logits = [low + (i + 0.5) * step for i in range(_STEPS)]
    logs = [-a * _softplus(-x) - b * _softplus(x) for x in logits]
    highest = max(logs)
    masses = [math.exp(value - highest) for value in logs]
    limit = sum(masses) / _ATOMS
    atoms: list[tuple[float, float]] = []
    mass = moment = 0.0
    for x, part in zip(logits, masses, strict=True):
        mass += part
        moment += part * math.exp(-_softplus(-x))
        if mass >= limit:
            atoms.append((moment / mass, mass))
            mass = moment = 0.0
    if mass:
        atoms.append((moment / mass, mass))
    return tuple(atoms)


def _softplus(x: float) -> float:
    """Return log(1 + exp(x)) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
