"""The embedded model at work: one batch in one thread, in a server or inside the proxy.

Only `load` imports numpy, and sees to its settings first.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from samplewise.proxy.errors import ConfigError

if TYPE_CHECKING:
    from samplewise.models.sampler import TinyModel

__all__ = ["MODEL", "load"]

MODEL = "samplewise-tiny"
"""The name under which the embedded model is served."""

_NEEDED_MB = 200
_NO_MEMORY = f"not enough memory for the embedded model: it needs {_NEEDED_MB} MB"


def load() -> TinyModel:
    """Import numpy and read the weights that come with Samplewise, some 0.2 s in all.

    Raises:
        ConfigError: the installation is damaged, or there is not enough memory.
    """
    # More threads make such small matrices slower; OpenBLAS reads this when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        # Asked for and given back, because OpenBLAS ends the process when it gets none.
        mmap.mmap(-1, _NEEDED_MB * 2**20).close()
    except OSError:
        raise ConfigError(_NO_MEMORY) from None
    try:
        from samplewise.models.sampler import TinyModel

        return TinyModel.load()
    except MemoryError:
        raise ConfigError(_NO_MEMORY) from None
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"cannot load the embedded model: {error}") from error
