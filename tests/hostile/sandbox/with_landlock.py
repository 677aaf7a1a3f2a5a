"""What must happen to the hostile programs under Landlock, where it is not the same."""

from tests.hostile.sandbox.programs import PROGRAMS

WITH_LANDLOCK = PROGRAMS
