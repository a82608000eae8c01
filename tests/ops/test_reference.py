"""The definition against numbers computed by hand."""

import pytest
import torch

from shortback.ops import Dynamics, multi_step
from shortback.surrogates import Triangular


def run(currents, *, decay=0.5, initial=None, **dynamics):
    x = torch.tensor(currents).reshape(-1, 1).requires_grad_()
    spikes, state = multi_step(
        x,
        dynamics=Dynamics(**dynamics),
        decay=decay,
        num_steps=len(currents),
        initial=initial,
        return_state=True,
        backend="reference",
    )
    return x, spikes, state


def test_membrane_by_hand():
    # hard: u = .75, 1.125 (fires, to 0), .5; soft: u = .75, 1.125 (fires, to .125), .5625
    _, spikes, state = run([0.75, 0.75, 0.5])
    assert spikes.flatten().tolist() == [0, 1, 0]
    assert state.item() == 0.5
    _, spikes, state = run([0.75, 0.75, 0.5], reset="soft")
    assert spikes.flatten().tolist() == [0, 1, 0]
    assert state.item() == 0.5625


def test_it_fires_at_the_threshold_and_starts_from_the_initial_membrane():
    _, spikes, state = run([0.25, 0.25], initial=torch.tensor([1.5]))  # u = .75 + .25 = 1: fires
    assert spikes.flatten().tolist() == [1, 0]
    assert state.item() == 0.25


@pytest.mark.parametrize(
    ("reset", "detach_reset", "through"),
    # The derivative of v[0] by u[0] = .75, surrogate .75 there: 1 - u g, 1, 1 - threshold g, 1.
    [("hard", False, 1 - 0.75 * 0.75), ("hard", True, 1), ("soft", False, 1 - 0.75), ("soft", True, 1)],
)
def test_gradient_by_hand(reset, detach_reset, through):
    x, spikes, _ = run([0.75, 0.75], reset=reset, detach_reset=detach_reset, surrogate=Triangular())
    spikes[1].sum().backward()
    at_second = 1 - 0.125  # surrogate at u[1] = 1.125
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([at_second * 0.5 * through, at_second]))


def test_a_constant_input_is_the_same_as_a_repeated_one():
    x = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    arguments = {"dynamics": Dynamics(), "decay": 0.5, "num_steps": 5, "backend": "reference"}
    constant, _ = multi_step(x, **arguments)
    repeated, _ = multi_step(x.repeat(5, 1, 1), **arguments)
    assert torch.equal(constant, repeated)


def test_a_learned_decay_in_half_precision_is_taken_in_that_of_the_membrane():
    """1 minus it has no half precision to lose, nor has the sum of its gradients over time."""
    x = torch.randn(9, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        decay = torch.tensor(0.1).bfloat16().to(dtype).requires_grad_()
        spikes, state = multi_step(
            x,
            dynamics=Dynamics(decay_input=True, threshold=0.3),
            decay=decay,
            num_steps=9,
            return_state=True,
            backend="reference",
        )
        (spikes.sum() + state.sum()).backward()
        results.append((spikes, state, decay.grad.bfloat16()))
    assert all(torch.equal(half, full) for half, full in zip(*results, strict=True))


def test_a_decay_of_several_elements_is_refused():
    arguments = {"dynamics": Dynamics(), "num_steps": 2, "backend": "reference"}
    with pytest.raises(ValueError, match=r"a decay of shape \[3\]: must be one number for the layer"):
        multi_step(torch.zeros(2, 4, 3), decay=torch.full((3,), 0.5), **arguments)
