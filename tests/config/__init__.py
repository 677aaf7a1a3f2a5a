"""Tests of the configuration: text, settings, cross checks, and `samplewise check`."""
