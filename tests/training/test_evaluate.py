import math

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn

from shortback.losses import ShortcutLoss
from shortback.training import evaluate

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])


class Table(nn.Module):
    """Returns rows of a table by their number, in `eval()` alone."""

    def __init__(self):
        super().__init__()
        self.norm, self.weight = nn.BatchNorm1d(2), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        assert not self.training
        return LOGITS[x.long()]


def test_by_hand():
    y = torch.tensor([0, 0, 1])
    result = evaluate(Table(), [(torch.tensor([0.0, 1.0]), y[:2]), (torch.tensor([2.0]), y[2:])])
    assert (result.accuracy, result.num_images) == (pytest.approx(1 / 3), 3)
    assert result.loss == pytest.approx(F.cross_entropy(LOGITS, y).item())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_probabilities_count_by_the_largest(count):
    """As many samples as classes, and one, are where comparing them to classes would broadcast."""
    y = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])[:count]
    result = evaluate(Table(), [(torch.arange(count).float(), y)])
    assert result.accuracy == pytest.approx(1 / count)
    assert result.loss == pytest.approx(F.cross_entropy(LOGITS[:count], y).item())


def test_modules_keep_their_modes_after_an_error_too():
    model = Table()
    model.norm.eval()
    with pytest.raises(IndexError):
        evaluate(model, [(torch.tensor([9.0]), torch.tensor([0]))])
    assert (model.training, model.norm.training) == (True, False)
    evaluate(model, [(torch.tensor([0.0]), torch.tensor([0]))])
    assert (model.training, model.norm.training) == (True, False)


def test_a_loss_of_ones_own_gets_what_it_gets_in_training():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return torch.stack([x, self.scale * x])

    shapes = []

    def last_step(logits, target):
        shapes.append([*logits.shape])
        return F.cross_entropy(logits[-1], target)

    x, y = torch.randn(5, 3), torch.arange(5) % 3
    result = evaluate(Steps(), [(x, y)], loss=last_step)
    assert shapes == [[2, 5, 3]]
    assert result.loss == pytest.approx(F.cross_entropy(2 * x, y).item())
    assert result.accuracy == pytest.approx((x.argmax(1) == y).double().mean().item())


@pytest.mark.parametrize(("each", "is_constant"), [([0], False), ([0, 0], True)])
def test_one_image_a_process_says_nothing_of_all(each, is_constant):
    fabric = Fabric(accelerator="cpu", devices=1)

    class Two:
        """Two processes that see the same number of images, each the same one."""

        device, world_size = fabric.device, 2

        def __getattr__(self, name):
            return getattr(fabric, name)

        def all_reduce(self, value, reduce_op):
            return 2 * value

    batches = [(torch.tensor(each).float(), torch.zeros(len(each), dtype=torch.long))]
    assert evaluate(Table(), batches, fabric=Two()).is_constant == is_constant


@pytest.mark.parametrize(
    ("rows", "is_constant"),
    [([[0, 0], [0]], True), ([[0, 0], [1]], False), ([[0, 1], [1]], False), ([[0]], False)],
)
def test_one_output_for_all_is_noted(rows, is_constant):
    batches = [(torch.tensor(each).float(), torch.zeros(len(each), dtype=torch.long)) for each in rows]
    assert evaluate(Table(), batches).is_constant == is_constant


@pytest.mark.parametrize("count", [3, 5])
def test_steps_may_lie_on_any_axis(count):
    class ByStep(nn.Module):
        def __init__(self, order):
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.order = nn.Linear(6, 4), order

        def forward(self, x):
            return torch.stack([self.fc(x * (1 + step)) for step in range(3)]).permute(self.order)

    batches = [(torch.randn(n, 6, generator=torch.Generator().manual_seed(n)), torch.arange(n) % 4) for n in (count, 3)]
    expected, *others = (evaluate(ByStep(order), batches) for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0)))
    assert expected.num_images == count + 3
    for found in others:
        assert (found.accuracy, found.loss) == (expected.accuracy, pytest.approx(expected.loss))


def test_nothing_to_evaluate_is_refused_and_nothing_counted_is_no_number():
    once = iter([(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))])
    assert evaluate(Table(), once).num_images == 2
    with pytest.raises(ValueError, match="got no batches: a generator or an iterator gives its batches only once"):
        evaluate(Table(), once)
    ignored = [(torch.tensor([0.0, 1.0]), torch.tensor([1, 1]))]
    result = evaluate(Table(), ignored, loss=nn.CrossEntropyLoss(ignore_index=1))
    assert (result.accuracy, result.num_images) == (None, 0)
    assert math.isnan(result.loss)


def test_the_loss_of_a_training_is_that_of_its_main_output():
    batches = [(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0, 0, 1]))]
    main = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    assert evaluate(Table(), batches, loss=ShortcutLoss(main=main)) == evaluate(Table(), batches, loss=main)
    assert evaluate(Table(), batches, loss=ShortcutLoss()) == evaluate(Table(), batches)


def test_a_network_without_weights_is_evaluated_on_the_cpu():
    assert evaluate(nn.Flatten(), [(LOGITS, torch.tensor([0, 0, 1]))]).accuracy == pytest.approx(1 / 3)
