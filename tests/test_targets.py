"""A target is right, made right where there is one way to, or refused with what to do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.losses import CrossEntropy
from shortback.outputs import Outputs
from shortback.targets import check_target

LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8, torch.int64])
def test_whole_numbers_of_any_size_are_classes(dtype):
    assert CrossEntropy()(LOGITS, Y.to(dtype)) == F.cross_entropy(LOGITS, Y)


def test_classes_fit_outputs_by_step():
    by_step = torch.stack([LOGITS, 2 * LOGITS])
    assert CrossEntropy()(by_step, Y) == F.cross_entropy(1.5 * LOGITS, Y)


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (LOGITS, F.one_hot(Y, 3), r"for one-hot rows, take target\.argmax\(1\)"),
        (LOGITS, Y[:, None], r"take target\.squeeze\(1\)"),
        (LOGITS, Y[:, None].expand(4, 5), r"for every pixel \(segmentation\) are not supported"),
        (LOGITS, Y.float(), r"classes are whole numbers, target\.long\(\)"),
        (LOGITS, torch.rand(4, 2), r"probabilities are \[N, 3\]"),
        (LOGITS, Y + 1, "labels from 1 to 3: the network has 3 classes"),
        (LOGITS, Y - 1, "labels from -1"),
        (LOGITS, Y[:3], "3 labels for 4 samples"),
        (LOGITS, Y.tolist(), "list as target"),
        (LOGITS[:, :1], Y, "single output"),
        (Outputs(LOGITS, {}), Y, r"pass its \.logits"),
        (LOGITS.numpy(), Y, "got ndarray as outputs"),
        (LOGITS[0], Y[0], r"outputs of shape \[3\]: must be \[N, K\], or \[T, N, K\] by step$"),
        (LOGITS[..., None, None], Y[:, None, None], r"outputs of shape \[4, 3, 1, 1\].*\(segmentation\)"),
    ],
    ids=range(14),
)
def test_what_is_refused(logits, target, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropy()(logits, target)


def test_a_loss_of_pytorch_may_leave_a_class_out():
    loss = sb.ShortcutLoss(main=nn.CrossEntropyLoss(ignore_index=9))
    y = torch.tensor([0, 9, 1, 9])
    assert loss(LOGITS, y, coefficient=0.0).total == F.cross_entropy(LOGITS[[0, 2]], y[[0, 2]])


def test_probabilities_pass():
    probabilities = torch.full((4, 3), 1 / 3)
    logits, target = check_target(LOGITS, probabilities)
    assert logits is LOGITS
    assert target is probabilities


@pytest.mark.parametrize("coefficient", [sb.schedules.Linear(), "0.5", None, -1.0, float("nan")])
def test_a_coefficient_is_a_number(coefficient):
    with pytest.raises(ValueError, match="coefficient="):
        sb.shortcut_loss(Outputs(LOGITS, {"a": LOGITS}), Y, coefficient=coefficient)


def test_outputs_say_where_the_logits_are():
    with pytest.raises(AttributeError, match=r"no 'argmax': take its \.logits"):
        Outputs(LOGITS, {}).argmax(1)
    assert not hasattr(Outputs(LOGITS, {}), "nothing")


def test_a_network_and_its_loss_compile_as_one_graph():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(4, 5)
    net = sb.attach(model, at=["1", "3"], sample=x).train()

    def step(x, y, coefficient):
        return sb.shortcut_loss(net(x), y, coefficient=coefficient).total

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    for coefficient in (0.25, torch.tensor(0.2), torch.tensor(0.1)):
        torch.testing.assert_close(compiled(x, Y, coefficient), step(x, Y, coefficient))
    with pytest.raises(ValueError, match="labels from 1 to 3"):
        step(x, Y + 1, 0.1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64])
def test_classes_of_any_whole_dtype(dtype):
    _, classes = check_target(torch.zeros(3, 4), torch.tensor([0, 3, 2]).to(dtype))
    assert (classes.dtype, classes.tolist()) == (torch.int64, [0, 3, 2])
    with pytest.raises(ValueError, match="labels from 0 to 4"):
        check_target(torch.zeros(3, 4), torch.tensor([0, 4, 2]).to(dtype))
