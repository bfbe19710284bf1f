"""ResNet-18: torchvision's names, the function of the paper, frames as samples."""

import math

import pytest
import torch
from torch import nn

from msam.models import ResNet18, encoder
from tests.definitions import resnet18 as definition


def torchvisions(classes: int = 1000) -> dict[str, torch.Tensor]:
    """Return a state such as torchvision's, of random values."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in definition.shapes(classes=classes).items():
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(7)
        elif len(shape) == 4:
            made[name] = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        else:
            made[name] = torch.rand(shape, generator=generator) + 0.5
    return made


def test_names_shapes_and_their_order_are_torchvisions():
    state = ResNet18(3, num_classes=1000).state_dict()
    assert len(state) == 122
    assert [(name, tuple(value.shape)) for name, value in state.items()] == list(definition.shapes().items())


def test_without_classes_it_is_the_torso_alone():
    names = list(ResNet18(3).state_dict())
    assert names == [name for name in definition.shapes() if not name.startswith("fc.")]


def test_torchvisions_weights_load_and_give_what_the_definition_gives():
    weights, x = torchvisions(), torch.randn(2, 3, 40, 56)
    net = encoder("resnet18", (3, 40, 56)).eval()
    net.layers[0].load_torchvision(weights)
    expected = definition.features(weights, x)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)
    whole = ResNet18(3, num_classes=1000).eval()
    whole.load_torchvision(weights)
    torch.testing.assert_close(whole(x), expected @ weights["fc.weight"].T + weights["fc.bias"], rtol=1e-4, atol=1e-3)


def test_a_grey_picture_gives_what_its_copy_in_three_channels_gives():
    weights, x = torchvisions(), torch.randn(2, 1, 32, 32)
    grey, colour = (encoder("resnet18", (channels, 32, 32)).eval() for channels in (1, 3))
    for net in (grey, colour):
        net.layers[0].load_torchvision(weights)
    torch.testing.assert_close(grey(x), colour(x.expand(2, 3, 32, 32)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("layer3.0.conv1.weight"), "layer3.0.conv1.weight"),
        (lambda w: w.update({"layer9.weight": torch.zeros(1)}), "layer9.weight"),
        (lambda w: w.update({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}), "size mismatch"),
        (lambda w: w.update({"fc.scale": torch.zeros(1)}), "fc.scale"),
    ],
)
def test_other_weights_are_refused_by_name(change, said):
    weights = torchvisions()
    change(weights)
    with pytest.raises(ValueError, match=said):
        ResNet18(3).load_torchvision(weights)


def test_a_classifier_of_other_classes_is_refused_where_there_is_one():
    with pytest.raises(ValueError, match=r"fc\.weight"):
        ResNet18(3, num_classes=10).load_torchvision(torchvisions())


def test_frames_are_samples_whose_features_are_averaged():
    torch.manual_seed(0)
    net, x = encoder("resnet18_frames", (3, 4, 32, 32)).eval(), torch.randn(2, 3, 4, 32, 32)
    single = encoder("resnet18", (3, 32, 32)).eval()
    single.layers[0].load_state_dict(net.layers[0].net.state_dict())
    by_hand = torch.stack([single(x[:, :, t]) for t in range(4)]).mean(0)
    torch.testing.assert_close(net(x), by_hand, rtol=1e-4, atol=1e-5)


def test_one_frame_is_a_picture_in_training_too():
    torch.manual_seed(0)
    net, x = encoder("resnet18_frames", (3, 1, 32, 32)), torch.randn(3, 3, 1, 32, 32)
    single = encoder("resnet18", (3, 32, 32))
    single.layers[0].load_state_dict(net.layers[0].net.state_dict())
    torch.testing.assert_close(net(x), single(x[:, :, 0]))


def test_initial_weights_are_those_of_the_codes():
    torch.manual_seed(0)
    net = ResNet18(1).requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.bias is None
            assert float(module.weight.std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert abs(float(module.weight.mean()) - 1) < 0.01
            assert float(module.weight.std()) == pytest.approx(0.02, rel=0.3)
            assert not module.bias.any()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (1, 8)),
        ("resnet18", (2, 28, 28)),
        ("resnet18", (3, 1, 28, 28)),
        ("resnet18", (1, 4, 28)),
        ("resnet18_frames", (3, 28, 28)),
        ("resnet18_frames", (3, 0, 28, 28)),
    ],
)
def test_shapes_it_is_not_for_are_refused(name, shape):
    with pytest.raises(ValueError, match=rf"'{name}' is for inputs \(C, .*received \({shape[0]}, "):
        encoder(name, shape)


def test_channels_are_one_or_three():
    with pytest.raises(ValueError, match="`in_channels` must be 1 or 3, received 4"):
        ResNet18(4)
