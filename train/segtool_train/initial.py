"""A recipe's network, and the weights that it starts from."""

from pathlib import Path

from torch import nn

from segtool.errors import UsageError
from segtool_train.encoder import Encoder, find_encoder
from segtool_train.frameworks import pl
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface
from segtool_train.networks.pretrained import read_weights
from segtool_train.recipe import Recipe


def build_network(recipe: Recipe) -> nn.Module:
    """The recipe's network with random weights."""
    return get_network(recipe.network.name, recipe.network.options).build(Interface.of(recipe.spec))


def first_network(
    recipe: Recipe, *, init: Path | None, encoder_weights: Path | None, fill: bool
) -> tuple[nn.Module, Encoder | None]:
    """The network with the weights that training begins with, and its encoder where it has one.

    Random ones are the same in every process and every run of one seed.

    Args:
        recipe: Of the run.
        init: All weights: folder of a run, or a file.
        encoder_weights: Those of the encoder; None takes what the recipe's network names, if anything.
        fill: False leaves the random ones, for a checkpoint to replace.

    Raises:
        UsageError: It cannot be built, or weights do not fit it.
    """
    pl.seed_everything(recipe.training.seed, verbose=False)
    described = get_network(recipe.network.name, recipe.network.options)
    network = build_network(recipe)
    if fill and init is not None:
        fill_network(network, init)
    elif fill:
        described.load_pretrained(network, encoder_weights)
    return network, find_encoder(described, network, recipe.training)


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
