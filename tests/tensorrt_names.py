"""The names that a TensorRT has: recorded in ``tensorrt_names.json``, one installed version at a time.

    python tests/tensorrt_names.py MODULE

adds those of the classes below, as the installed ``MODULE`` has them; any Python that can import it will do, and no
GPU is needed. The record says which names exist, and nothing of what they do.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

CLASSES = (
    "Builder", "BuilderFlag", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "ILogger", "ILogger.Severity",
    "IOptimizationProfile", "IProgressMonitor", "ITimingCache", "MemoryPoolType", "NetworkDefinitionCreationFlag",
    "OnnxParser", "ParserError", "Runtime",
)  # fmt: skip
"""Those of which we call something by name."""
RECORD = Path(__file__).with_suffix(".json")

Names = dict[str, list[str]]


def names_of(module: Any) -> Names:
    """Public names by class; a class that the version lacks is left out."""
    found = {}
    for path in CLASSES:
        owner = module
        for part in path.split("."):
            owner = getattr(owner, part, None)
        if owner is not None:
            found[path] = [name for name in dir(owner) if not name.startswith("_")]
    return found


def recorded() -> dict[str, Names]:
    """By engine and version, such as ``tensorrt 8.6.1``."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return {engine: {owner: names.split() for owner, names in classes.items()} for engine, classes in record.items()}


def record(module: Any) -> str:
    """Add a version to the record, one line a class; returns what it is called there."""
    engine = f"{module.__name__.removesuffix('_bindings').replace('_', '-')} {module.__version__}"
    known = recorded() if RECORD.is_file() else {}
    known[engine] = names_of(module)
    lines = {name: {owner: " ".join(names) for owner, names in known[name].items()} for name in sorted(known)}
    RECORD.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    return engine


if __name__ == "__main__":
    print(record(import_module(sys.argv[1])))  # noqa: T201 - a command's answer
