"""Calls to upstreams as values."""

from __future__ import annotations

from dataclasses import fields

from samplewise.proxy.backends.base import Call, Reading


def test_a_call_to_a_host_is_the_same_call() -> None:
    call = Call(
        id="r-0.0",
        body=b"{}",
        n=3,
        stream=True,
        raw=True,
        timeout_s=7.0,
        host="http://one/v1",
        reading=Reading(top=True),
        sending=lambda: None,
        path="/completions",
        echo=True,
        whole=True,
    )
    plain = Call("", b"")
    for field in fields(Call):
        assert getattr(call, field.name) != getattr(plain, field.name), "set it, so that it is seen"
        if field.name != "host":
            assert getattr(call.at("http://two/v1"), field.name) == getattr(call, field.name)
    assert call.at("http://two/v1").host == "http://two/v1"
