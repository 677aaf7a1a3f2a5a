"""Tests of programs: where they come from, how they run, how results are compared."""
