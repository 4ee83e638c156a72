"""The list of the bundled models' checksums: ``python -m benchmarks.model_sums`` writes it anew.

``segtool models verify`` holds an installation against it, and so does ``sha256sum --check SHA256SUMS``.
"""

from segtool.atomic import write_text
from segtool.bundled import MODELS_FOLDER, SUMS_NAME, bundled_models
from segtool.model_file import sha256


def sums() -> str:
    """One line a model."""
    return "".join(f"{sha256(path)}  {path.name}\n" for path in bundled_models().values())


if __name__ == "__main__":
    write_text(MODELS_FOLDER / SUMS_NAME, sums())
    print(MODELS_FOLDER / SUMS_NAME)
