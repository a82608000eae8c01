"""Which weight a forward uses first, and gradients where not every output has one."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import shortback as sb
from shortback.health import measure
from shortback.health.graph import first_used, first_uses, gradients
from shortback.losses import ShortcutLoss


class Backwards(nn.Module):
    """Layers registered from the last to the first, and one that is not used."""

    def __init__(self):
        super().__init__()
        self.fc, self.b, self.a, self.spare = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.b(self.a(x).relu()).relu())

    @property
    def weights(self):
        return {name: p for name, p in self.named_parameters() if p.ndim == 2}


def order(net, x):
    uses = dict(zip(net.weights, first_uses([net(x)], net.weights.values()), strict=True))
    return sorted((name for name in uses if uses[name] is not None), key=lambda name: uses[name], reverse=True)


def test_the_order_of_use_is_not_that_of_registration():
    net = Backwards()
    assert order(net, torch.randn(2, 4)) == ["a.weight", "b.weight", "fc.weight"]
    assert first_used([net(torch.randn(2, 4))], list(net.weights.values())) is net.a.weight
    assert first_used([torch.ones(1)], list(net.weights.values())) is None


def test_a_weight_used_at_every_step_counts_by_its_first_use():
    net, h = Backwards(), torch.zeros(2, 4)
    for x in torch.randn(3, 2, 4):
        h = net.a((x + h).relu())
    (early,) = first_uses([net.fc(net.b(h))], [net.a.weight])
    (once,) = first_uses([net.fc(net.b(net.a(torch.randn(2, 4))))], [net.a.weight])
    assert early > once


def test_of_what_is_compiled_it_is_known_too():
    net = Backwards()
    net.compile(backend="aot_eager")
    try:
        assert order(net, torch.randn(2, 4)) == ["a.weight", "b.weight", "fc.weight"]
    finally:
        torch.compiler.reset()


def test_outputs_without_a_gradient_have_no_part_in_one():
    weight, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    outputs = [3 * weight, torch.ones(2)]
    found = gradients(outputs, [weight, other], [torch.ones(2), torch.ones(2)], keep=True)
    assert found[0].tolist() == [3, 3]
    assert found[1] is None
    assert gradients(outputs[1:], [weight, other], [torch.ones(2)], keep=False) == [None, None]


def test_a_checkpoint_that_hides_weights_is_named():
    before, net = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    output = checkpoint(net, before(torch.randn(3, 2)), use_reentrant=True)
    with pytest.raises(ValueError, match=r"write checkpoint\(\.\.\., use_reentrant=False\)"):
        gradients([output], [before.weight, net[0].weight], [torch.ones_like(output)], keep=False)


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.use_reentrant = use_reentrant
        self.a, self.b, self.fc = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(checkpoint(self.b, self.a(x), use_reentrant=self.use_reentrant) if self.training else self.a(x))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_of_checkpoints_one_kind_is_refused():
    x, y = torch.randn(4, 6), torch.arange(4)
    layers = measure(Checkpointed(False), x, y, loss=ShortcutLoss(), coefficient=0.0).layers
    assert [layer.name for layer in layers] == ["a", "b.0", "fc"]
    with pytest.raises(ValueError, match="use_reentrant=False"):
        measure(Checkpointed(True), x, y, loss=ShortcutLoss(), coefficient=0.0)


def mlp():
    return nn.Sequential(
        nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 5)
    )


@pytest.mark.parametrize("combine", ["logits", "additive"])
@pytest.mark.parametrize("by_branch", [True, False])
def test_a_branch_with_nothing_to_train_has_no_part(combine, by_branch):
    torch.manual_seed(0)
    model, x, y = mlp(), torch.randn(4, 6), torch.arange(4)
    model[0].requires_grad_(False)
    net = sb.attach(model, at=["0"], sample=x)
    net.heads.requires_grad_(False)
    seen = measure(net, x, y, loss=ShortcutLoss(combine=combine), coefficient=1.0, by_branch=by_branch)
    assert [(layer.name, layer.branch_norm) for layer in seen.layers] == [("1.0", 0), ("2", 0)]
    assert all(layer.gradient_norm > 0 for layer in seen.layers)


def test_an_output_that_is_cut_off_is_named():
    class CutOff(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(ValueError, match="no output of CutOff leads back to trainable weights"):
        measure(CutOff(6, 5), torch.randn(4, 6), torch.arange(4), loss=ShortcutLoss(), coefficient=0.0)
