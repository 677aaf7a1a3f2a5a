"""The most tokens of a prompt: images at their own number, every byte of text as one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from samplewise.proxy.wire import parse_chat, prompt_bound

URL = "data:image/png;base64," + "A" * 50_000
IMAGE = {"type": "image_url", "image_url": {"url": URL}}


def bound(*content: Any) -> int:
    messages = [{"role": "user", "content": list(content)}]
    body = msgspec.json.encode({"model": "m", "messages": messages})
    return prompt_bound(parse_chat(body, {}), None, 700)


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        {"type": "input_image", "image_url": URL},
        {"type": "file", "file": {"file_data": URL, "filename": "a.pdf"}},
    ],
)
def test_an_image_in_its_own_place_counts_as_one_and_not_by_its_bytes(image: Any) -> None:
    assert 700 < bound(image) < 1_000
    assert 1_400 < bound(image, image) < 1_800


@pytest.mark.parametrize("text", [URL, f"see {URL}", URL.replace("A", "\\")])
def test_text_that_looks_like_an_image_costs_its_tokens(text: str) -> None:
    said = {"type": "text", "text": text}
    assert bound(IMAGE, said) >= len(text) + 700
    assert bound({"type": "text", "text": "hi", "image_url": None}, said) >= len(text) + 700
