"""Sandboxes for programs that a model wrote."""

from samplewise.verifiers.sandbox.base import (
    Limits,
    Outcome,
    Program,
    RunStatus,
    Sandbox,
    SandboxUnavailable,
)

__all__ = ["Limits", "Outcome", "Program", "RunStatus", "Sandbox", "SandboxUnavailable"]
