from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samplewise.models.config import Config
from samplewise.models.network import Network
from samplewise.models.sampler import TINY
from samplewise.models.weights import read_safetensors, write_safetensors


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors: dict[str, NDArray[Any]] = {
        "b": np.arange(6, dtype=np.float16).reshape(2, 3),
        "a": np.ones(3, np.float32),
        "c": np.zeros((0, 4), np.float32),
    }
    write_safetensors(path, tensors)
    found = read_safetensors(path)
    assert list(found) == ["a", "b", "c"]
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": np.ones(8, np.float32)})
    whole = path.read_bytes()
    for end in (0, 4, 20, len(whole) - 4):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"cut off|does not fit"):
            read_safetensors(path)


def test_other_data_types_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": np.ones(2, np.float16)})
    path.write_bytes(path.read_bytes().replace(b'"F16"', b'"I16"'))
    with pytest.raises(ValueError, match="I16"):
        read_safetensors(path)


def test_the_committed_weights_fit_the_configuration_and_the_size_limit() -> None:
    tensors = read_safetensors(TINY / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == Config().shapes()
    assert (TINY / "model.safetensors").stat().st_size <= 2_500_000


def test_a_network_refuses_weights_that_lack_something() -> None:
    with pytest.raises(ValueError, match="embed_tokens"):
        Network(Config(), {})
