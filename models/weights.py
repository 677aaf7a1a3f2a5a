"""Read and write safetensors files of half- and single-precision numbers, with numpy alone.

The format: eight bytes of header length, a JSON header, then the raw values. See
https://github.com/huggingface/safetensors#format for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_safetensors", "write_safetensors"]

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_ALIGNMENT = 8


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read every tensor of a file.

    Raises:
        ValueError: the file is damaged, or holds another data type than F16 or F32.
    """
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError(f"{path.name} is no safetensors file, or was cut off")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + size :]
    tensors = {}
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        start, end = entry["data_offsets"]
        shape = entry["shape"]
        if dtype is None:
            raise ValueError(
                f"{name} in {path.name} has data type {entry['dtype']}, not F16 or F32"
            )
        if not 0 <= start <= end <= len(body) or end - start != dtype.itemsize * _count(shape):
            raise ValueError(f"{name} in {path.name} does not fit into the file")
        tensors[name] = np.frombuffer(body[start:end], dtype).reshape(shape)
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write tensors in the order of their names."""
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        header[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + tensor.nbytes],
        }
        body += tensor.tobytes()
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _ALIGNMENT)
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)


def _count(shape: list[int]) -> int:
    """Return how many values a shape holds."""
    count = 1
    for length in shape:
        count *= length
    return count
