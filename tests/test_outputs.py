import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.outputs import Outputs

X, Y = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(4)


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)),
    )
    return sb.attach(model, at=["1"], sample=X)


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(), F.mse_loss])
def test_a_function_of_tensors_says_what_to_give_it(net, loss):
    with pytest.raises(
        ValueError, match=r"got the Outputs .* pass its \.logits, or train with shortback.shortcut_loss"
    ):
        loss(net(X), Y)


def test_outputs_are_a_tuple_that_can_be_copied_and_compiled(net):
    outputs = net(X)
    logits, branches = outputs
    assert logits is outputs.logits
    assert list(branches) == ["1"]
    assert isinstance(pickle.loads(pickle.dumps(Outputs(X, {}))), Outputs)
    compiled = torch.compile(net, fullgraph=True, backend="eager")(X)
    torch.testing.assert_close(compiled.logits, logits)


def test_training_in_eval_is_told_once_for_a_network(net, caplog):
    def loss(net, coefficient):
        return sb.shortcut_loss(net(X), Y, coefficient=coefficient).total

    loss(net, 0.25).backward()
    net.eval()
    with torch.no_grad():  # a validation
        loss(net, 0.25)
    with torch.inference_mode():
        loss(net, 0.25)
    loss(net, 0.0).backward()  # branches that weigh nothing are missed by nobody
    assert not caplog.messages
    other = copy.deepcopy(net)
    for _ in range(2):
        loss(net, torch.tensor(0.25)).backward()
    (message,) = caplog.messages
    assert "is in eval(), where no branches are computed and the coefficient 0.25 has no effect" in message
    assert net(X).branches == {}
    loss(other, 1.0)
    assert len(caplog.messages) == 2
    net.train().branches_enabled = False  # as asked for
    caplog.clear()
    loss(net, 0.25).backward()
    assert not caplog.messages
