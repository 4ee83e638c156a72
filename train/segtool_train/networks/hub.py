"""Pre-trained encoders by name, from the hub or from what was downloaded from it before."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segtool.errors import UsageError

_PATIENCE_S = 5


def encoder_from_hub(name: str, depth: int, published: str) -> dict[str, torch.Tensor]:
    """Tensors of the encoder that segmentation-models-pytorch calls ``name``, for three channels.

    Args:
        name: Its name there, ``tu-NAME`` for one of timm.
        depth: How often it halves the extent.
        published: Which of its weights.

    Raises:
        UsageError: There are no such weights, or they cannot be downloaded.
    """
    from segmentation_models_pytorch.encoders import encoders, get_encoder

    listed = encoders[name]["pretrained_settings"] if name in encoders else {"imagenet": {}}
    if published not in listed:
        variant = ", or name a variant of timm's as tu-NAME.VARIANT" if name not in encoders else ""
        raise UsageError(
            f"encoder {name!r} has no weights {published!r} on the hub",
            f"Set [network] pretrained to one of: {', '.join(listed)}{variant}.",
        )
    try:
        with _reachable_hub():
            donor = get_encoder(name, depth=depth, weights=published if name in encoders else True)
    except Exception as error:
        # Many classes of many libraries mean "offline"; weights that timm lacks are the same to the user.
        raise UsageError(
            f"{published} weights of {name!r} are not on this machine and cannot be downloaded "
            f"({type(error).__name__})",
            "Give a file of them with --encoder-weights FILE, or run once with a connection: they are kept.",
        ) from error
    state: dict[str, torch.Tensor] = getattr(donor, "model", donor).state_dict()
    return state


@contextmanager
def _reachable_hub() -> Iterator[None]:
    """Ask the hub once whether it answers; the library would ask, wait and print for most of a minute.

    Where it does not, the library takes what was downloaded before.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(address, timeout=_PATIENCE_S)
    except Exception:  # noqa: BLE001 - of whatever library the hub's package sends its requests with
        return False
    return True
