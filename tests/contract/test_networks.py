"""What every network of the table must do."""

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
from segtool_train.recipe import find_recipe, read_recipe

ROWS: dict[str, tuple[str, dict[str, Any], Interface]] = {
    "unet 2d": ("unet", {"width": 4, "depth": 3}, Interface(2, 1, 1)),
    "unet 2d group": ("unet", {"width": 8, "depth": 2, "norm": "group", "dropout": 0.2}, Interface(2, 3, 2)),
    "unet 2d no norm": ("unet", {"width": 4, "depth": 2, "norm": "none"}, Interface(2, 1, 1)),
    "unet 3d instance": ("unet", {"width": 4, "depth": 3, "norm": "instance"}, Interface(3, 2, 3)),
    "resnet18": (
        "unet_encoder",
        {"encoder_name": "resnet18", "decoder_channels": [16, 8, 8, 8, 4]},
        Interface(2, 1, 1),
    ),
    "light 3d": ("unet3d_light", {"width": 4, "depth": 3}, Interface(3, 4, 4)),
}
"""Every family of the table, small; the options that change its layers."""


def build(row: str, seed: int = 0) -> torch.nn.Module:
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
    one, two, other = build(row), build(row), build(row, seed=5)
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


def test_the_light_3d_network_has_the_published_number_of_weights():
    recipe = read_recipe(find_recipe("brats3d-light"))
    network = get_network(recipe.network.name, recipe.network.options).build(Interface.of(recipe.spec))
    assert sum(weight.numel() for weight in network.parameters()) == 340_596
