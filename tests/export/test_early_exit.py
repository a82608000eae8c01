"""Exits beside a run by hand, image by image."""

import pytest
import torch

import shortback as sb
from shortback.export.early_exit import EarlyExit, by_step
from shortback.export.exits import NEVER, exit_curve
from shortback.export.operations import count_operations
from tests.export.networks import images, network


@pytest.fixture(scope="module")
def model():
    model = network("resnet20")
    with torch.no_grad():
        model.network.fc.weight *= 8  # so that it is sure of something
    return model


@torch.no_grad()
@pytest.mark.parametrize("num_steps", [None, 3])
def test_images_leave_as_by_hand(model, num_steps):
    x, temperatures = images(12, num_steps=num_steps), (2.0, 1.0, 0.5)
    first, _ = sb.stream(model)(x if num_steps is None else x[0])
    threshold = float((first / 2).softmax(1).amax(1).median()) + 1e-4  # half of them are sure after a step
    exits = EarlyExit(model, threshold=threshold, temperatures=temperatures)
    logits, steps = exits(x)
    assert len(set(steps.tolist())) > 1
    for n in range(12):
        stream, state = sb.stream(model), None
        for step, temperature in enumerate(temperatures):
            y, state = stream(x[n : n + 1] if num_steps is None else x[step, n : n + 1], state)
            if (y / temperature).softmax(1).max() >= threshold:
                break
        assert steps[n] == step + 1
        torch.testing.assert_close(logits[n], y[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_a_threshold_it_is_the_network(model):
    x = images(5)
    logits, steps = EarlyExit(model, threshold=NEVER)(x)
    assert torch.equal(logits, model(x))
    assert steps.tolist() == [3] * 5
    logits, steps = EarlyExit(model, threshold=1e-6)(x)
    assert steps.tolist() == [1] * 5


def test_the_curve_is_what_a_run_gives(model):
    x = images(12)
    labels = model(x).argmax(1)
    labels[::3] = (labels[::3] + 1) % 10
    steps = by_step(model, [(x[:5], labels[:5]), (x[5:], labels[5:])])
    points = exit_curve(steps, (1.0, 1.0, 1.0), thresholds=(0.4, 0.6, 0.9))
    for point in points:
        logits, taken = EarlyExit(model, threshold=point.threshold)(x)
        assert point.mean == pytest.approx(float(taken.float().mean()))
        assert point.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert points[-1].mean == 3
    assert [p.mean for p in points] == sorted(p.mean for p in points)
    assert points[0].acs < points[-1].acs


def test_operations_are_those_of_each_image(model):
    """All steps together as `count_operations` counts a sequence, in which the first layer runs at every step."""
    x = images(3, num_steps=3)
    steps = by_step(model, [(x, torch.zeros(3, dtype=torch.int64))])
    for n in range(3):
        alone = count_operations(model, [x[:, n : n + 1]])
        assert float(steps.acs[:, n].sum() + steps.macs[:, n].sum()) == pytest.approx(alone.acs + alone.macs)
    assert float(steps.macs[0, 0]) > 0


def test_what_is_wrong_is_said(model):
    for threshold in (0, -0.5, 1.1, 1000, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"must be a confidence, above 0 and at most 1$"):
            EarlyExit(model, threshold=threshold)
    with pytest.raises(ValueError, match=r"threshold=90: .* and at most 1; 90 % is 0\.9"):
        EarlyExit(model, threshold=90)
    EarlyExit(model, threshold=1)
    with pytest.raises(ValueError, match="2 temperatures for 3 steps"):
        EarlyExit(model, threshold=0.5, temperatures=(1.0, 1.0))
    with pytest.raises(ValueError, match="no image"):
        by_step(model, [])


def test_a_readout_of_every_step_changes_no_exit(model):
    x, labels = images(4), torch.zeros(4, dtype=torch.int64)
    expected, curve = model(x), by_step(model, [(x, labels)]).logits
    model.readout = "steps"
    try:
        assert torch.equal(EarlyExit(model, threshold=NEVER)(x)[0], expected)
        assert torch.equal(by_step(model, [(x, labels)]).logits, curve)
    finally:
        model.readout = "mean"


@pytest.mark.parametrize("num_steps", [2, 4])
def test_a_sequence_of_another_length_is_refused(model, num_steps):
    x = images(2, num_steps=num_steps)
    with pytest.raises(ValueError, match=f"a sequence of {num_steps} steps for a model of 3"):
        EarlyExit(model, threshold=0.5)(x)
    with pytest.raises(ValueError, match=f"a sequence of {num_steps} steps for a model of 3"):
        by_step(model, [(x, torch.zeros(2, dtype=torch.int64))])
