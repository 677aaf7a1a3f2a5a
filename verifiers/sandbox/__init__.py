"""Sandboxes for programs that a model wrote."""

from samplewise.verifiers.sandbox.base import (
    Kind,
    Limits,
    Outcome,
    Program,
    RunStatus,
    Sandbox,
    SandboxUnavailable,
)

__all__ = ["Kind", "Limits", "Outcome", "Program", "RunStatus", "Sandbox", "SandboxUnavailable"]
