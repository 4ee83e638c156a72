"""Networks, by name. One file a family; a class is imported when its name is asked for."""

from importlib import import_module
from typing import Any

from pydantic import ValidationError

from segtool.errors import UsageError
from segtool_train.networks.base import Network

NETWORKS: dict[str, str] = {
    "unet": "segtool_train.networks.unet:UNet",
    "unet_encoder": "segtool_train.networks.unet_encoder:UNetOnEncoder",
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
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"]) or "options"
        raise UsageError(
            f"network {name!r}: option {option!r} is not valid ({first['msg']})",
            f"It takes: {', '.join(described.model_fields)}.",
        ) from error
