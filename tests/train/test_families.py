"""What is particular to a family; what all of them do is in the contract test."""

import pytest
import torch

from segtool.errors import UsageError
from segtool_train.networks import get_network
from segtool_train.networks.attention_unet import AttentionGate
from segtool_train.networks.base import Interface
from segtool_train.networks.residual_unet import ResidualBlock
from segtool_train.networks.unet3d_light import ResidualPair


@pytest.mark.parametrize(("rank", "opening", "share"), [(2, -100.0, 0.0), (3, 0.0, 0.5), (2, 100.0, 1.0)])
def test_a_gate_lets_its_share_of_the_skip_through(rank: int, opening: float, share: float):
    gate = AttentionGate(rank, skip=4, below=8)
    torch.nn.init.zeros_(gate.psi.weight)
    torch.nn.init.constant_(gate.psi.bias, opening)
    skip, below = torch.randn(2, 4, *(8,) * rank), torch.randn(2, 8, *(4,) * rank)
    torch.testing.assert_close(gate(skip, below), share * skip)


def test_a_gate_opens_where_the_features_below_say_so():
    gate = AttentionGate(2, skip=2, below=1)
    for weight, value in ((gate.theta.weight, 0), (gate.phi.weight, 1), (gate.phi.bias, 0), (gate.psi.weight, 100)):
        torch.nn.init.constant_(weight, value)
    torch.nn.init.constant_(gate.psi.bias, -50)
    below = torch.zeros(1, 1, 4, 4)
    below[..., 2:] = 1
    let_through = gate(torch.ones(1, 2, 8, 8), below)
    torch.testing.assert_close(let_through[..., :3], torch.zeros(1, 2, 8, 3))
    torch.testing.assert_close(let_through[..., 5:], torch.ones(1, 2, 8, 3))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_residual_block_whose_body_is_silent_passes_its_input(rank: int):
    block = ResidualBlock(rank, "batch", 0.5, 3, 3).eval()
    torch.nn.init.zeros_(block.body[-1].weight)
    features = torch.randn(2, 3, *(4,) * rank)
    torch.testing.assert_close(block(features), features.relu())


def test_a_residual_block_drops_channels_in_training_only():
    torch.manual_seed(0)
    block = ResidualBlock(2, "none", 0.5, 3, 8)
    features = torch.randn(1, 3, 4, 4)
    assert not torch.equal(block.train()(features), block(features))
    assert torch.equal(block.eval()(features), block(features))


def test_a_pair_whose_second_convolution_is_silent_passes_its_first():
    pair = ResidualPair(torch.nn.InstanceNorm3d, 2, 5)
    torch.nn.init.zeros_(pair.second[0].weight)
    features = torch.randn(1, 2, 4, 4, 4)
    wanted = torch.nn.functional.leaky_relu(pair.first(features), 0.01)
    torch.testing.assert_close(pair(features), wanted)


def test_the_bottoms_of_the_two_networks_of_mueller_and_wolf():
    with torch.device("meta"):
        image, interface = torch.empty(2, 3, 256, 256), Interface(2, 3, 1)
        plain = get_network("unet", {"width": 64}).build(interface)
        on_resnet = get_network("unet_classic_encoder", {"encoder_name": "resnet50"}).build(interface)
        bottoms: list[torch.Size] = []
        for bottom in (plain.down[-1], on_resnet.encoder.layer4):
            bottom.register_forward_hook(lambda _module, _inputs, features: bottoms.append(features.shape))
        answers = [network(image).shape for network in (plain, on_resnet)]
    assert answers == [(2, 1, 256, 256)] * 2
    assert bottoms == [(2, 1024, 16, 16), (2, 2048, 8, 8)]
    assert (len(plain.merge), len(on_resnet.merge)) == (4, 5)
    # The same stages: from 512 down to 64 channels both have them, and the encoder's network one of 1024 below.
    widths = [[merge[0].out_channels for merge in network.merge] for network in (plain, on_resnet)]
    assert widths == [[512, 256, 128, 64], [1024, 512, 256, 128, 64]]


def test_a_resnet_has_a_stem_and_four_layers():
    described = get_network("unet_encoder", {"encoder_name": "resnet18"})
    with torch.device("meta"):
        module = described.build(Interface(2, 1, 1))
    encoder = module.encoder
    stages = [list(stage) for stage in described.encoder_stages(module)]
    assert stages == [
        [encoder.conv1, encoder.bn1],
        [encoder.layer1],
        [encoder.layer2],
        [encoder.layer3],
        [encoder.layer4],
    ]


def test_what_computes_nothing_is_taken_out():
    described = get_network("unet_encoder", {"encoder_name": "resnet18", "decoder_channels": [8, 8, 4]})
    with torch.device("meta"):
        module = described.build(Interface(2, 1, 1))
    assert not list(module.encoder.layer4.parameters())
    assert len(described.encoder_stages(module)) == 3


def test_blocks_that_are_called_with_more_than_features_can_be_taken_out():
    """An EfficientNet hands each of its blocks a drop rate."""
    options = {"encoder_name": "efficientnet-b0", "decoder_channels": [8, 8, 4]}
    described = get_network("unet_encoder", options)
    with torch.device("meta"):
        module = described.build(Interface(2, 1, 1))
        assert module(torch.empty(2, 1, 64, 64)).shape == (2, 1, 64, 64)
    assert len(described.encoder_stages(module)) == 3


def test_an_encoder_that_cannot_be_cut_is_one_line():
    options = {"encoder_name": "tu-hrnet_w18_small", "decoder_channels": [8, 8, 4]}
    described = get_network("unet_encoder", options)
    with torch.device("meta"), pytest.raises(UsageError, match="as many stages as the encoder has"):
        described.build(Interface(2, 1, 1))


@pytest.mark.parametrize(
    ("name", "options", "problem", "remedy"),
    [
        ("unett", {}, "'unett' is not known", "attention_unet, residual_unet"),
        ("unet", {"widht": 3}, "has no option 'widht'", r"width = 32, depth = 5, norm = 'batch'"),
        ("unet", {"depth": 1}, "'depth'.*greater than or equal to 2, found 1", "It takes: width"),
        ("unet", {"norm": "layer"}, "'batch', 'instance', 'group' or 'none', found 'layer'", "It takes: width"),
        ("unet_encoder", {}, "needs option 'encoder_name'", r"encoder_name \(required\)"),
        ("unet_encoder", {"encoder_name": "resnet18", "decoder_attention": "scse", "decoder_channels": [16, 16, 8]},
         "16 or more decoder_channels", "It takes"),
        ("unet3d_light", {"convolutions": 3, "residual": True}, "even number of convolutions, not 3", "It takes"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_with_all_options(name: str, options: dict[str, object], problem: str, remedy: str):
    with pytest.raises(UsageError, match=rf"{problem}.*{remedy}"):
        get_network(name, options)


@pytest.mark.parametrize("name", ["unet_encoder", "unet_classic_encoder"])
def test_an_encoder_for_volumes_is_refused(name: str):
    with pytest.raises(UsageError, match="take network 'unet'"):
        get_network(name, {"encoder_name": "resnet18"}).build(Interface(3, 1, 1))
