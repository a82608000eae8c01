import pytest
import torch

import shortback as sb
from shortback.training import WarmupCosine, build_optimizer


def test_warmup_and_cosine_by_hand():
    rate = WarmupCosine(peak=0.4, total_steps=8, warmup_steps=4, final=0.0)
    expected = [0.1, 0.2, 0.3, 0.4, 0.4, 0.2 * (1 + 0.5**0.5), 0.2, 0.2 * (1 - 0.5**0.5)]
    assert [rate(step) for step in range(8)] == pytest.approx(expected)
    assert WarmupCosine(peak=1.0, total_steps=10, final=0.1)(9) > 0.1


def test_a_warmup_as_long_as_the_training_is_refused():
    with pytest.raises(ValueError, match="must be shorter"):
        WarmupCosine(peak=1.0, total_steps=5, warmup_steps=5)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weight_decay_is_on_weights_alone(kind):
    model = sb.create_model("resnet20", neuron=sb.PLIF)
    decayed, free = build_optimizer(model, kind=kind, weight_decay=1e-3).param_groups
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in free["params"]} == {0, 1}  # learned decays, norms and biases
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-3, 0.0)
    assert sum(len(g["params"]) for g in (decayed, free)) == len(list(model.parameters()))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="'sgd' or 'adamw'"):
        build_optimizer(torch.nn.Linear(1, 1), kind="lion")
