"""Brain-tumour MRI segmentation: scans in, label maps in the scans' own geometry out, from one model file."""

import os
from typing import TYPE_CHECKING, Any

from segtool.version import __version__

if TYPE_CHECKING:
    from segtool.api import Model, load_model, predict

# From 1.29 on ONNX Runtime tells its maker of the machine and of every model that is loaded, by name and checksum, and
# keeps an identifier in the home folder. It looks here once, when it is imported; whoever has set it knows why.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Model", "__version__", "load_model", "predict"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type of the attribute asked for
    # Loaded on use: `import segtool` and `segtool --help` need none of the readers and engines.
    if name in __all__:
        from segtool import api

        return getattr(api, name)
    raise AttributeError(f"module 'segtool' has no attribute {name!r}")
