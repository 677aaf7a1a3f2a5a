"""Tests that a request brings: whether it may, and whether anything will run them."""

from __future__ import annotations

import msgspec

from samplewise.proxy.errors import Forbidden, RequestError
from samplewise.proxy.job import Route
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.options import Options
from samplewise.verifiers.base import TakesTests, TestsError

__all__ = ["check_tests"]


def check_tests(options: Options, key: ClientKey | None, route: Route) -> bool:
    """Return whether all tests that the request brings will run; true without any."""
    tests = bytes(options.tests)
    if tests == b"null":
        return True
    if key is not None and not key.terms.tests and not _only_named(tests):
        raise Forbidden(
            "samplewise.tests: this key may not send tests; leave them out, or name a suite by ref",
            code="tests_not_allowed",
            param="samplewise.tests",
        )
    try:
        verifiers = [check.verifier for check in route.checks]
        return any([v.check_tests(tests) for v in verifiers if isinstance(v, TakesTests)])
    except TestsError as error:
        join = "" if error.place.startswith("[") or not error.place else "."
        path = f"samplewise.tests{join}{error.place}"
        raise RequestError(f"{path}: {error.text}", param=path) from None


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    ref: str


def _only_named(tests: bytes) -> bool:
    try:
        msgspec.json.decode(tests, type=_Named)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
