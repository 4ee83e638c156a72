"""Networks, by name. One file a family; a class is imported when its name is asked for."""

from importlib import import_module
from typing import Any

from pydantic import ValidationError

from segtool.errors import UsageError
from segtool_train.networks.base import Network

NETWORKS: dict[str, str] = {
    "unet": "segtool_train.networks.unet:UNet",
    "attention_unet": "segtool_train.networks.attention_unet:AttentionUNet",
    "residual_unet": "segtool_train.networks.residual_unet:ResidualUNet",
    "unet_encoder": "segtool_train.networks.unet_encoder:UNetOnEncoder",
    "unet_classic_encoder": "segtool_train.networks.unet_classic_encoder:ClassicUNetOnEncoder",
    "unet3d_light": "segtool_train.networks.unet3d_light:LightUNet3D",
}


def get_network(name: str, options: dict[str, Any]) -> Network:
    """The network called ``name`` with its options checked.

    Raises:
        UsageError: No such network, or an option that it does not take.
    """
    if name not in NETWORKS:
        raise UsageError(f"network {name!r} is not known", f"Name one of: {', '.join(NETWORKS)}.")
    module, _, attribute = NETWORKS[name].partition(":")
    described: type[Network] = getattr(import_module(module), attribute)
    try:
        return described.model_validate(options)
    except ValidationError as error:
        raise UsageError(f"network {name!r} {_complaint(error)}", f"It takes: {_options(described)}.") from error


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    option = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"has no option {option!r}"
    if first["type"] == "missing":
        return f"needs option {option!r}"
    reason = first["msg"].removeprefix("Value error, ")
    return f"option {option!r}: {reason}, found {first['input']!r}" if option else f"options: {reason}"


def _options(described: type[Network]) -> str:
    """Every option with its default."""
    return ", ".join(
        f"{name} (required)" if field.is_required() else f"{name} = {field.default!r}"
        for name, field in described.model_fields.items()
    )
