"""Made-up recordings, small and of every kind."""

from __future__ import annotations

from hypothesis import strategies as st

from samplewise.policies.price import Price
from samplewise.policies.replay.records import Problem, RecordedSample

PRICES = {"": Price.per_mtok("0.25", "1", None)}


def voted(text: str, right: str = "a", seconds: tuple[float, ...] = (), id_: str = "p") -> Problem:
    """Return a problem whose samples answer with one letter each; `.` is none."""
    samples = tuple(
        RecordedSample(
            answer=None if letter == "." else letter,
            tokens=10 + i,
            seconds=seconds[i] if seconds else 1.0,
        )
        for i, letter in enumerate(text)
    )
    return Problem(id=id_, samples=samples, prompt_tokens=40, reference=right)


def judged(text: str, id_: str = "p") -> Problem:
    """Return a problem of right (`r`) and wrong (`w`) samples, no two with the same text."""
    samples = tuple(
        RecordedSample(text=f"{letter}{i}", correct=letter == "r", tokens=10, seconds=1.0)
        for i, letter in enumerate(text)
    )
    return Problem(id=id_, samples=samples, prompt_tokens=40)


@st.composite
def problems(draw: st.DrawFn, samples: int = 12) -> Problem:
    """Draw a problem with votes, missing answers, tied durations and samples without tokens."""
    made = draw(
        st.lists(
            st.builds(
                RecordedSample,
                answer=st.sampled_from(["a", "a", "b", "c", None]),
                tokens=st.integers(0, 50),
                seconds=st.sampled_from([0.0, 1.0, 1.5, 2.0, 7.0]),
            ),
            min_size=samples,
            max_size=samples,
        )
    )
    id_ = draw(st.text("xyz", min_size=1, max_size=3))
    return Problem(id=id_, samples=tuple(made), prompt_tokens=7, reference="a")
