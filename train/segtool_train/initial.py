"""All weights of a network from an earlier run."""

from pathlib import Path

from torch import nn

from segtool.errors import UsageError
from segtool_train.networks.pretrained import read_weights


def fill_network(network: nn.Module, source: Path) -> None:
    """Fill ``network`` with the best weights of a run, or with a file of weights.

    Args:
        network: Of the very shape that the weights were trained in.
        source: Folder of a run, ``.safetensors`` or a torch file of tensors.

    Raises:
        UsageError: They cannot be read, or are those of another network.
    """
    state, own = read_weights(source), network.state_dict()
    faults = [
        *(f"lacks {key!r}" for key in own if key not in state),
        *(f"has {key!r}, which the network lacks" for key in state if key not in own),
        *(
            f"has {key!r} with shape {tuple(state[key].shape)}, the network wants {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ),
    ]
    if faults:
        more = f" and {len(faults) - 1} more differences" if len(faults) > 1 else ""
        raise UsageError(
            f"--init {source}: the weights do not fit: it {faults[0]}{more}",
            "Take the [network], channels and labels of the recipe that trained them, or leave --init out.",
        )
    network.load_state_dict(state)
