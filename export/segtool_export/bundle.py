"""``metadata.json`` in the words of a MONAI bundle, beside the model, for tools that read those.

Source of the keys: MONAI's bundle specification, section "metadata.json File".
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from segtool.atomic import write_text
from segtool.model_file import read_spec, sha256
from segtool.spec import ModelSpec
from segtool.version import __version__

METADATA = "metadata.json"


def write_metadata(model: Path) -> Path:
    """Write ``metadata.json`` beside a model file.

    Raises:
        ModelError: Not a model of ours.
        OutputError: The file cannot be written.
    """
    content = metadata(read_spec(model), model)
    path = model.parent / METADATA
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def metadata(spec: ModelSpec, model: Path) -> dict[str, Any]:
    """What a bundle's ``metadata.json`` says of the model. Keys that the spec says nothing for are left out."""
    source = spec.provenance
    software = source.get("software", {})
    optional = {
        "authors": source.get("authors"),
        "copyright": source.get("licence"),
        "data_source": source.get("data"),
        "pytorch_version": software.get("torch"),
        "monai_version": software.get("monai"),
        "references": [source["citation"]] if "citation" in source else None,
    }
    return {
        "version": spec.version,
        "changelog": {spec.version: spec.description or "exported"},
        **{key: value for key, value in optional.items() if value is not None},
        "numpy_version": np.__version__,
        "optional_packages_version": {"segtool": __version__},
        "name": spec.name,
        "task": f"segmentation of {', '.join(label.name for label in spec.labels)}",
        "description": spec.description,
        "intended_use": "research; not a medical device",
        "model_file": model.name,
        "model_sha256": sha256(model),
        "network_data_format": {"inputs": {"image": _input(spec)}, "outputs": {"logits": _output(spec)}},
    }


def _input(spec: ModelSpec) -> dict[str, Any]:
    return {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": len(spec.channels),
        "spatial_shape": _shape(spec),
        "dtype": "float32",
        "value_range": [0, 1] if spec.intensity.kind == "minmax" else [],
        "is_patch_data": spec.input.rank == 3,
        "channel_def": {str(i): name for i, name in enumerate(spec.channel_names)},
    }


def _output(spec: ModelSpec) -> dict[str, Any]:
    names = [label.name for label in spec.labels]
    if spec.activation == "softmax":
        names.insert(0, "background")
    return {
        "type": "logits",
        "format": "segmentation",
        "num_channels": spec.output_channels,
        "spatial_shape": _shape(spec),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": spec.input.rank == 3,
        "channel_def": {str(i): name for i, name in enumerate(names)},
    }


def _shape(spec: ModelSpec) -> list[int]:
    return list(spec.extent)
