"""What `make test-vllm` and `make test-gpu` start, looked at where there is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.proxy.config import load_text
from samplewise.proxy.config_backends import VllmBackendSettings
from tests.vllm.server import command, environment
from tests.vllm.serving import write_config


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_suites_own_configuration_is_valid_on_each_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("SAMPLEWISE_VLLM", "/somewhere/bin/python")
    monkeypatch.setenv("SAMPLEWISE_DEVICE", device)
    file = write_config(tmp_path, 8123)
    vllm = load_text(file.read_text(), str(file), {}).backends["vllm"]
    assert isinstance(vllm, VllmBackendSettings)
    assert vllm.serve is not None
    assert vllm.serve.command[0] == "/somewhere/bin/python"
    # On a GPU vLLM finds its device by itself, and shares the memory with other servers.
    assert ("VLLM_TARGET_DEVICE" in vllm.serve.env) is (device == "cpu")
    assert ("--gpu-memory-utilization" in vllm.serve.args) is (device == "cuda")
    assert ("--block-size" in vllm.serve.args) is (device == "cpu")


def test_servers_of_single_tests_are_started_as_the_suites_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAMPLEWISE_VLLM", "/somewhere/bin/python")
    monkeypatch.setenv("SAMPLEWISE_DEVICE", "cuda")
    start, args = command(context=128)
    assert start[:2] == ["/somewhere/bin/python", "-m"]
    assert args[-2:] == ["--max-model-len", "128"]
    assert not {name for name in environment() if name.startswith("VLLM_CPU")}
