import copy

import numpy as np
import pytest
import torch
from torch import nn

from shortback.neurons import IF, LIF, NEURONS, PLIF, Expand

REFERENCE = {"backend": "reference"}


def currents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).mul(1.5)


@pytest.mark.parametrize("kind", NEURONS.values(), ids=list(NEURONS))
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_streaming_is_the_sequence(kind, reset):
    neuron = kind(5, reset=reset, **REFERENCE)
    x = currents(5 * 2, 3, 4)
    whole = neuron(x)
    state, steps = None, []
    for current in x.unflatten(0, (5, 2)):
        spikes, state = neuron.step(current, state)
        steps.append(spikes)
    assert torch.equal(torch.cat(steps), whole)
    assert torch.equal(neuron(x), whole)  # and nothing was left behind


def test_streaming_compiled():
    neuron, reference = LIF(1, backend="compiled"), LIF(1, **REFERENCE)
    state = state_reference = None
    for current in currents(3, 2, 4):
        spikes, state = neuron.step(current, state)
        expected, state_reference = reference.step(current, state_reference)
        assert torch.equal(spikes, expected)
        torch.testing.assert_close(state, state_reference)


def test_decays():
    x = torch.tensor([0.75, 0.75])
    assert IF(2, **REFERENCE)(x).tolist() == [0, 1]  # .75 + .75
    assert LIF(2, decay=0.25, **REFERENCE)(x).tolist() == [0, 0]  # .75 + .1875
    assert PLIF(2, decay=0.5, **REFERENCE)(x).tolist() == [0, 1]  # .75 + .375


def test_a_learned_decay_is_a_parameter_with_a_gradient():
    neuron = PLIF(4, decay=0.3, **REFERENCE)
    assert neuron.leak().item() == pytest.approx(0.3)
    neuron(currents(8, 3)).sum().backward()
    assert neuron.decay_logit.grad.abs() > 0
    assert list(LIF(4).state_dict()) == []


def test_a_static_input_is_expanded():
    neuron = LIF(3, **REFERENCE)
    x = currents(2, 4)
    repeated = neuron(x.repeat(3, 1))
    neuron.static_input = True
    assert torch.equal(neuron(x), repeated)
    expand = Expand(3)
    assert expand(repeated) is not None
    assert torch.equal(expand(repeated), repeated)
    expand.static_input = True
    assert torch.equal(expand(x), x.repeat(3, 1))
    images = currents(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    assert expand(images).is_contiguous(memory_format=torch.channels_last)


def test_copies_are_independent():
    neuron = PLIF(4)
    clone = copy.deepcopy(neuron)
    clone.num_steps = 2
    assert neuron.num_steps == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(0), "num_steps=0: must be a whole number, 1 or more"),
        (lambda: LIF(2.5), "num_steps=2.5: must be a whole number, 1 or more"),
        (lambda: LIF(True), "num_steps=True: must be a whole number, 1 or more"),
        (
            lambda: LIF(2, threshold=nn.Parameter(torch.ones(()))),
            "(?s)threshold=.*learned thresholds, .* are not supported",
        ),
        (lambda: LIF(2, decay=torch.tensor(0.5)), "decay=.*PLIF learns one"),
        (lambda: PLIF(2, decay="0.5"), "decay='0.5': must be a finite number"),
        (lambda: LIF(2, decay=float("nan")), "decay"),
        (lambda: LIF(2, decay=2.0), r"must be in \[0, 1\]; for a time constant tau, write decay=1 - 1 / tau"),
        (lambda: LIF(2, decay=-0.5), r"must be in \[0, 1\]"),
        (lambda: LIF(2, threshold=0.0), "must be above 0"),
        (lambda: PLIF(2, decay=1.0), "between 0 and 1"),
        (lambda: LIF(2, reset="off"), "hard, soft"),
        (lambda: LIF(3, **REFERENCE)(torch.zeros(4, 2)), "num_steps=3 got 4 rows"),
        (lambda: LIF(1, backend="fast"), "auto, reference, compiled"),
    ],
)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_are_numbers():
    neuron = LIF(2, decay=np.float32(0.5), threshold=np.float32(0.5), **REFERENCE)
    assert type(neuron.dynamics.threshold) is type(neuron.decay) is float
    assert torch.equal(neuron(currents(4, 3)), LIF(2, decay=0.5, threshold=0.5, **REFERENCE)(currents(4, 3)))


def test_the_representation_names_the_numbers():
    text = repr(LIF(4, decay=0.5, detach_reset=True))
    assert "num_steps=4" in text
    assert "hard, detached" in text
    assert "decay=0.5" in text
