"""What every network of the table must do."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segtool.backends import load_backend
from segtool.spec import ModelSpec
from segtool_export.onnx_file import write_onnx
from segtool_train.networks import NETWORKS, get_network
from segtool_train.networks.base import Interface

ROWS: dict[str, tuple[str, dict[str, Any], Interface]] = {
    "unet 2d": ("unet", {"width": 4, "depth": 3}, Interface(2, 1, 1)),
    "unet 2d group": ("unet", {"width": 8, "depth": 2, "norm": "group", "dropout": 0.2}, Interface(2, 3, 2)),
    "unet 2d no norm": ("unet", {"width": 4, "depth": 2, "norm": "none"}, Interface(2, 1, 1)),
    "unet 3d instance": ("unet", {"width": 4, "depth": 3, "norm": "instance"}, Interface(3, 2, 3)),
    "unet 2d sparse norms": (
        "unet",
        {"width": 4, "depth": 3, "bottom_norm": False, "merge_norms": 1, "biased": True, "dropout": 0.4},
        Interface(2, 1, 1),
    ),
    "attention 2d": ("attention_unet", {"width": 4, "depth": 3}, Interface(2, 4, 4)),
    "attention 3d": ("attention_unet", {"width": 4, "depth": 2, "norm": "instance"}, Interface(3, 4, 4)),
    "residual 2d": ("residual_unet", {"width": 4, "depth": 3, "dropout": 0.3}, Interface(2, 4, 4)),
    "residual 3d": ("residual_unet", {"width": 4, "depth": 2, "norm": "none"}, Interface(3, 4, 4)),
    "resnet18": (
        "unet_encoder",
        {"encoder_name": "resnet18", "decoder_channels": [16, 8, 8, 8, 4]},
        Interface(2, 1, 1),
    ),
    "resnet18 shallow scse": (
        "unet_encoder",
        {
            "encoder_name": "resnet18",
            "decoder_channels": [24, 16, 16],
            "decoder_attention": "scse",
            "decoder_norm": "instance",
            "decoder_interpolation": "bilinear",
        },
        Interface(2, 4, 2),
    ),
    "efficientnet": (
        "unet_encoder",
        {"encoder_name": "efficientnet-b0", "decoder_channels": [16, 8, 8, 8, 4]},
        Interface(2, 1, 1),
    ),
    "classic on mobilenet": (
        "unet_classic_encoder",
        {"encoder_name": "mobilenet_v2", "widths": [16, 8, 8, 4, 4]},
        Interface(2, 3, 1),
    ),
    "classic shallow on convnext": (
        "unet_classic_encoder",
        {"encoder_name": "tu-convnext_atto", "widths": [8, 8, 4], "norm": "none", "dropout": 0.1},
        Interface(2, 1, 3),
    ),
    "light 3d, batch norm": ("unet3d_light", {"width": 4, "depth": 3, "norm": "batch"}, Interface(3, 4, 4)),
    "light 3d": ("unet3d_light", {"width": 4, "depth": 3}, Interface(3, 4, 4)),
    "light 3d pairs": (
        "unet3d_light",
        {"width": 4, "depth": 2, "convolutions": 4, "residual": True},
        Interface(3, 4, 4),
    ),
}
"""Every family of the table, small; the options that change its layers."""


def build(row: str) -> torch.nn.Module:
    return deepcopy(built(row))


@cache
def built(row: str, seed: int = 0) -> torch.nn.Module:
    """To be copied: large encoders take long to fill with random numbers."""
    name, options, interface = ROWS[row]
    torch.manual_seed(seed)
    return get_network(name, options).build(interface)


def example(row: str, batch: int = 2, factor: int = 3) -> torch.Tensor:
    name, options, interface = ROWS[row]
    divisor = get_network(name, options).divisor
    shape = (batch, interface.inputs, *(divisor * (factor + axis) for axis in range(interface.rank)))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def spec_of(row: str) -> ModelSpec:
    name, options, interface = ROWS[row]
    divisor = get_network(name, options).divisor
    extent = [divisor * 4] * interface.rank
    return ModelSpec.model_validate(
        {
            "name": "contract",
            "channels": [{"name": f"c{i}"} for i in range(interface.inputs)],
            "labels": [{"name": f"l{i}", "value": i + 1} for i in range(interface.outputs)],
            "input": {"rank": 2, "size": extent} if interface.rank == 2 else {"rank": 3, "patch": extent},
            "divisor": divisor,
        }
    )


def test_every_family_has_a_row():
    assert {name for name, _, _ in ROWS.values()} == set(NETWORKS)


@pytest.mark.parametrize("row", ROWS)
def test_the_answer_has_the_extent_of_the_input_and_an_odd_one_is_refused(row: str):
    network, image = build(row).eval(), example(row)
    with torch.inference_mode():
        assert network(image).shape == (2, ROWS[row][2].outputs, *image.shape[2:])
        with pytest.raises((ValueError, RuntimeError), match=r"divi"):
            network(image[..., :-1])


@pytest.mark.parametrize("row", ROWS)
def test_every_weight_gets_a_gradient(row: str):
    network = build(row).train()
    network(example(row)).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


@pytest.mark.parametrize("row", ROWS)
def test_one_seed_gives_one_network_whose_state_survives_a_file(row: str, tmp_path: Path):
    one, two, other = build(row), built.__wrapped__(row), built.__wrapped__(row, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    save_file(one.state_dict(), tmp_path / "state.safetensors")
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    with torch.inference_mode():
        assert torch.equal(one.eval()(example(row)), other.eval()(example(row)))


@pytest.mark.parametrize("row", ROWS)
def test_the_exported_file_answers_as_torch_does_for_any_batch_and_extent(row: str, tmp_path: Path):
    network = build(row)
    network.train()
    with torch.no_grad():
        network(example(row))  # running statistics that are not those of a new layer
    write_onnx(network, spec_of(row), tmp_path / "model.onnx", opset=17)
    backend = load_backend(tmp_path / "model.onnx", "cpu", threads=1)
    for batch, factor in ((1, 3), (3, 4)):
        image = example(row, batch, factor)
        with torch.inference_mode():
            wanted = network.eval()(image).numpy()
        np.testing.assert_allclose(backend.run(image.numpy()), wanted, atol=1e-4)


@pytest.mark.parametrize("row", [row for row in ROWS if "encoder" in ROWS[row][0]])
def test_the_stages_of_an_encoder_are_all_of_it_once_and_freeze(row: str):
    name, options, interface = ROWS[row]
    described = get_network(name, options)
    with torch.device("meta"):
        network = described.build(interface)
    encoder, stages = described.encoder(network), described.encoder_stages(network)
    assert encoder is not None
    parts = [weight for stage in stages for weight in stage.parameters()]
    assert sorted(map(id, parts)) == sorted(map(id, encoder.parameters()))
    encoder.requires_grad_(False)
    stages[-1].requires_grad_(True)
    network(example(row).to("meta")).square().mean().backward()
    moving = {id(weight) for weight in network.parameters() if weight.grad is not None}
    still = {id(weight) for stage in stages[:-1] for weight in stage.parameters()}
    assert moving == {id(weight) for weight in network.parameters()} - still


def test_a_network_without_encoder_has_no_stages():
    assert get_network("unet", {}).encoder_stages(torch.nn.Identity()) == []


HASSAN = {"width": 64, "bottom_norm": False, "merge_norms": 1, "biased": True, "dropout": 0.4}
PAIRS = {"convolutions": 4, "residual": True}
COUNTS: dict[str, tuple[str, dict[str, Any], Interface, int]] = {
    "light, 3 levels": ("unet3d_light", {}, Interface(3, 4, 4), 340_596),
    "light, 4 levels": ("unet3d_light", {"depth": 4, **PAIRS}, Interface(3, 4, 4), 2_867_956),
    "light, 4 levels, wide": ("unet3d_light", {"depth": 4, "width": 32, **PAIRS}, Interface(3, 4, 4), 11_465_188),
    "light, 5 levels": ("unet3d_light", {"depth": 5, **PAIRS}, Interface(3, 4, 4), 11_536_756),
    "light, 5 levels, wide": ("unet3d_light", {"depth": 5, "width": 32, **PAIRS}, Interface(3, 4, 4), 46_137_060),
    "Hassan": ("unet", HASSAN, Interface(2, 1, 1), 31_036_353),
}
"""Published networks and how many weights they are said to have."""


@pytest.mark.parametrize("row", COUNTS)
def test_a_published_network_has_the_published_number_of_weights(row: str):
    name, options, interface, count = COUNTS[row]
    with torch.device("meta"):
        network = get_network(name, options).build(interface)
    assert sum(weight.numel() for weight in network.parameters()) == count


def test_hassans_count_includes_the_statistics_of_2880_norms():
    with torch.device("meta"):
        network = get_network("unet", HASSAN).build(Interface(2, 1, 1))
    statistics = sum(buffer.numel() for buffer in network.buffers() if buffer.ndim)
    assert statistics == 2 * 2880
    assert sum(weight.numel() for weight in network.parameters()) + statistics == 31_042_113
