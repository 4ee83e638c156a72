"""The pre-trained part of a network: when it stands still, and when it learns."""

from dataclasses import dataclass

from torch import nn

from segtool.errors import UsageError
from segtool_train.networks.base import Network
from segtool_train.recipe import TrainingRecipe


@dataclass(frozen=True)
class Encoder:
    """An encoder inside a network.

    Args:
        module: All of it.
        stages: Its parts, the input's side first.
    """

    module: nn.Module
    stages: tuple[nn.Module, ...]

    def thaw(self, epoch: int, training: TrainingRecipe) -> None:
        """Freeze and unfreeze for an epoch, counted from 0.

        What stands still keeps its batch norms' statistics, too.
        """
        learns = epoch >= training.freeze_encoder_epochs
        if training.unfreeze_from == 0:
            _let(self.module, learns)
            return
        _let(self.module, False)
        for stage in self.stages[training.unfreeze_from :]:
            _let(stage, learns)


def find_encoder(described: Network, network: nn.Module, training: TrainingRecipe) -> Encoder | None:
    """The encoder of ``network``, None where it has none.

    Raises:
        UsageError: The recipe's options of encoders do not fit this network.
    """
    module = described.encoder(network)
    if module is None:
        chosen = [key for key in ("freeze_encoder_epochs", "unfreeze_from", "encoder_lr") if getattr(training, key)]
        if chosen:
            raise UsageError(
                f"the recipe sets training.{chosen[0]}, and its network has no encoder",
                "Leave it out, or take a network on an encoder, such as 'unet_encoder'.",
            )
        return None
    stages = tuple(described.encoder_stages(network))
    if training.unfreeze_from >= len(stages):
        raise UsageError(
            f"training.unfreeze_from is {training.unfreeze_from}, and the encoder has {len(stages)} stages",
            f"Take 0 to {len(stages) - 1}, or freeze it for ever with freeze_encoder_epochs = {training.epochs}.",
        )
    return Encoder(module, stages)


def _let(module: nn.Module, learn: bool) -> None:
    module.requires_grad_(learn)
    module.train(learn)
