from __future__ import annotations

import pytest

from samplewise.verifiers.base import Status, VerifierSetupError
from samplewise.verifiers.final_answer import FinalAnswer
from samplewise.verifiers.lifecycle import Managed, close_all, open_all
from tests.verifiers.making import says


async def test_only_managed_verifiers_are_opened_and_closed() -> None:
    managed, plain = says(Status.PASS), FinalAnswer(name="f")
    await open_all([managed, plain])
    await close_all([plain, managed])
    assert managed.calls == ["open", "close"]
    assert not isinstance(plain, Managed)


async def test_the_first_problem_is_told_by_name_without_a_group_around_it() -> None:
    class Broken:
        name = "mine"

        async def open(self) -> None:
            raise VerifierSetupError("no such module")

        async def close(self) -> None: ...

    with pytest.raises(VerifierSetupError, match=r"^mine: no such module$"):
        await open_all([Broken(), says(Status.PASS)])
