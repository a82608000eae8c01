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


def test_logits_alone_in_a_loss_are_told_once_for_a_network(net, caplog):
    def loss(outputs, coefficient=0.25):
        return sb.shortcut_loss(outputs, Y, coefficient=coefficient).total

    loss(net(X))
    loss(net(X).logits, 0.0)  # branches that weigh nothing are missed by nobody
    loss(net.model(X))  # a network without any
    with torch.no_grad():  # a validation
        loss(net(X).logits)
    loss(net.eval()(X).logits)
    assert not caplog.messages
    outputs = net.train()(X)
    for _ in range(2):
        loss(outputs.logits).backward(retain_graph=True)
    (message,) = caplog.messages
    assert message.endswith("the coefficient 0.25 has no effect: pass net(x) itself")


def test_the_terms_of_a_loss_say_which_to_take(net):
    terms = sb.shortcut_loss(net(X), Y, coefficient=0.25)
    with pytest.raises(AttributeError, match=r"no 'backward': take \.total"):
        terms.backward()
    with pytest.raises(AttributeError, match=r"no 'totl'$"):
        _ = terms.totl
    assert isinstance(pickle.loads(pickle.dumps(terms._replace(total=X, main=X, branches={}))), sb.LossTerms)


@pytest.mark.parametrize(
    ("name", "hint"), [("fit", "from shortback.training import fit"), ("attch", "the nearest are attach")]
)
def test_the_package_says_where_a_name_is(name, hint):
    with pytest.raises(AttributeError, match=f"'shortback' has no attribute '{name}'. {hint}"):
        getattr(sb, name)
    assert not hasattr(sb, "_nothing")
