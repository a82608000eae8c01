import pytest
import torch
from torch import nn

from shortback.export.exits import NEVER, ExitPoint, Exits, RowCount, calibrated, cheapest, exit_curve


def test_temperatures_are_the_best_of_two_classes():
    """Of logits that are three times too sure: of 1000 images, as many are right as a third of them would say."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(1, 20000, generator=generator)
    labels = (torch.rand(20000, generator=generator) < truth[0].sigmoid()).long()
    logits = torch.stack([-truth / 2, truth / 2], 2)
    exits = Exits(torch.cat([3 * logits, logits, logits / 4]), labels, *torch.zeros(2, 3, 20000), (1, 2, 3))
    assert calibrated(exits) == pytest.approx((3.0, 1.0, 0.25), rel=0.08)


def test_the_cheapest_loses_no_more():
    points = exit_curve(
        Exits(
            torch.tensor([[[1.0, 0.0], [0.2, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]),
            torch.tensor([0, 1]),
            torch.ones(2, 2),
            torch.ones(2, 2),
            (1, 2),
        ),
        (1.0, 1.0),
        thresholds=(0.5, 0.7, 0.9),
    )
    assert [(p.accuracy, p.mean, p.acs) for p in points] == [
        (0.5, 1.0, 1.0),
        (1.0, 1.5, 1.5),
        (1, 2, 2),
        (1, 2, 2),
    ]
    assert cheapest(points, loss=0.0).threshold == 0.7
    assert cheapest(points, loss=0.5).threshold == 0.5


def test_layers_with_several_rows_an_image_count_for_their_image():
    """Four windows an image, as in Swin; the first image fires everywhere, the others nowhere."""
    net = nn.Sequential(nn.Unflatten(1, (4, 8)), nn.Flatten(0, 1), nn.Linear(8, 8), nn.Unflatten(0, (-1, 4)))
    for count in (2, 3):
        x = torch.zeros(count, 32)
        x[0] = 1
        rows = RowCount(net, num_steps=3)
        rows.start(count)
        net(x)
        assert rows.acs.tolist() == [256] + [0] * (count - 1)
        assert rows.macs.tolist() == [0] * count
        rows.start(count)
        net(torch.cat([x] * 3))  # three steps, folded
        assert rows.acs.tolist() == [3 * 256] + [0] * (count - 1)


def test_a_loss_that_is_allowed_is_not_refused_for_the_last_bits():
    """Of 200 images 107 are right without early exit, and 106, which is 0.005 less, with."""
    with_exit, without = (float(torch.arange(200).lt(right).float().mean()) for right in (106, 107))
    points = [ExitPoint(0.5, with_exit, 1.0, 0.0, 0.0), ExitPoint(NEVER, without, 4.0, 0.0, 0.0)]
    assert cheapest(points, loss=0.005).mean == 1
