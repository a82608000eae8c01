import torch
from torch import nn

import shortback as sb
from shortback.export.folding import affine, fold_norms, folded
from tests.export.networks import images, network


def test_it_is_the_same_function_in_float64():
    for name, settings in (("resnet20", {}), ("vgg11", {}), ("foreign", {}), ("resnet20", {"residual": "membrane"})):
        model = network(name, **settings).double()
        copied, names = fold_norms(model)
        assert names
        assert all(isinstance(copied.network.get_submodule(n), nn.Identity) for n in names)
        x = images().double()
        torch.testing.assert_close(copied(x), model(x), rtol=1e-9, atol=1e-12)
        assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_by_hand():
    conv, norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, eps=0.1)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight)
    norm.eval()
    weight, bias = folded(conv, norm)
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, bias), norm.double()(conv.double()(x)))
    scale, _ = affine(nn.BatchNorm2d(3, affine=False).eval())
    torch.testing.assert_close(scale, torch.full((3,), (1 + 1e-5) ** -0.5, dtype=torch.float64))


def test_layers_called_by_name_are_folded():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act, self.fc = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.act(self.norm(input=self.conv(input=x))).mean([2, 3]))

    assert fold_norms(sb.spikify(ByName(), num_steps=2))[1] == ["norm"]


def test_what_cannot_be_folded_stays():
    """A norm behind an activation, and a convolution that something else uses too."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()
            self.after, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

        def forward(self, x):
            x = self.conv(x)
            x = self.after(self.act(self.norm(x) + x))
            return self.fc(x.mean([2, 3]))

    model = sb.spikify(Shared(), num_steps=2)
    assert fold_norms(model)[1] == []
    assert "after" not in fold_norms(network("foreign"))[1]
