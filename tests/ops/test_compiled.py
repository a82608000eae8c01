"""The compiled kernels against the definition, in outputs and in gradients."""

import pytest
import torch

from shortback import ops
from shortback.ops import Dynamics, kernels
from shortback.surrogates import Arctan, TanhWindow, Triangular

SOFT = Dynamics(threshold=0.7, reset="soft", surrogate=Arctan())
DETACHED = Dynamics(detach_reset=True, surrogate=TanhWindow())
HARD = Dynamics(surrogate=Triangular())


def both(x, grad, *, dynamics, decay=0.25, initial=None, num_steps=None, return_state=False, grad_state=None):
    """Outputs and gradients by backend."""
    results = []
    for backend in ("reference", "compiled"):
        leaves = {"x": x.clone(memory_format=torch.preserve_format).requires_grad_()}
        if isinstance(decay, torch.Tensor):
            leaves["decay"] = decay.clone().requires_grad_()
        if initial is not None:
            leaves["initial"] = initial.clone().requires_grad_()
        spikes, state = ops.multi_step(
            leaves["x"],
            dynamics=dynamics,
            decay=leaves.get("decay", decay),
            num_steps=num_steps or x.shape[0],
            initial=leaves.get("initial"),
            return_state=return_state,
            backend=backend,
        )
        loss = (spikes * grad).sum()
        if grad_state is not None:
            loss = loss + (state * grad_state).sum()
        loss.backward()
        results.append({"spikes": spikes, "state": state, **{k: v.grad for k, v in leaves.items()}})
    return results


def check(x, grad, **arguments):
    reference, fused = both(x, grad, **arguments)
    assert reference["spikes"].dtype == fused["spikes"].dtype == x.dtype
    assert 0.02 < reference["spikes"].float().mean() < 0.9
    assert torch.equal(reference.pop("spikes"), fused.pop("spikes"))
    for name, value in reference.items():
        torch.testing.assert_close(fused[name], value, msg=lambda text, name=name: f"{name}: {text}")


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(1.5).to(dtype)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 7, 16])
def test_every_number_of_steps(num_steps):
    check(random(num_steps, 3, 5, 7), random(num_steps, 3, 5, 7, seed=1), dynamics=HARD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dynamics", [SOFT, DETACHED], ids=["soft", "detached"])
def test_resets_and_precisions(dynamics, dtype):
    check(random(4, 3, 129, dtype=dtype), random(4, 3, 129, dtype=dtype, seed=1), dynamics=dynamics)


def test_channels_last_keeps_its_format_and_takes_any_gradient():
    x = random(8, 5, 3, 7).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    check(x, random(4, 2, 5, 3, 7, seed=1), dynamics=HARD)  # the gradient comes contiguous
    check(x, random(5, 4, 2, 3, 7, seed=1).movedim(0, 2), dynamics=HARD)
    check(x, torch.ones(1, 1, 1, 1, 1), dynamics=HARD)  # expanded, stride 0
    spikes, _ = ops.multi_step(x, dynamics=HARD, decay=0.25, num_steps=4, backend="compiled")
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_a_tensor_with_holes():
    wide = random(4, 3, 10)
    check(wide[:, :, ::2], random(4, 3, 5, seed=1), dynamics=HARD)


def test_learned_decay_and_initial_state():
    x = random(3, 2, 6, 5, 4).movedim(2, -1)  # an order of axes of its own, for the state too
    grad = random(3, 2, 5, 4, 6, seed=1)
    check(
        x,
        grad,
        dynamics=SOFT,
        decay=torch.tensor(0.6),
        initial=random(2, 5, 4, 6, seed=2),
        return_state=True,
        grad_state=random(2, 5, 4, 6, seed=3),
    )


def test_only_the_state_is_used():
    x = random(2, 4, 3).requires_grad_()
    _, state = ops.multi_step(x, dynamics=HARD, decay=0.25, num_steps=2, return_state=True, backend="compiled")
    (fused,) = torch.autograd.grad(state.sum(), x)
    _, state = ops.multi_step(x, dynamics=HARD, decay=0.25, num_steps=2, return_state=True, backend="reference")
    (reference,) = torch.autograd.grad(state.sum(), x)
    torch.testing.assert_close(fused, reference)


def test_constant_input():
    check(random(1, 6, 5), random(4, 6, 5, seed=1), dynamics=HARD, num_steps=4)


def test_an_empty_batch():
    x = torch.empty(4, 0, 3, requires_grad=True)
    spikes, _ = ops.multi_step(x, dynamics=HARD, decay=0.25, num_steps=4, backend="compiled")
    assert spikes.shape == (4, 0, 3)


def test_one_kernel_serves_every_shape():
    ops.multi_step(random(4, 2, 3), dynamics=HARD, decay=0.25, num_steps=4, backend="compiled")
    before = kernels.num_kernels()
    with torch.compiler.set_stance("fail_on_recompile"):
        for shape in ((4, 7, 11), (4, 2, 3, 5, 5), (4, 31), (4, 64, 8, 8, 8)):
            ops.multi_step(random(*shape), dynamics=HARD, decay=0.25, num_steps=4, backend="compiled")
    assert kernels.num_kernels() == before


def test_it_saves_nothing_but_its_input():
    x = random(4, 8, 16).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ops.multi_step(x, dynamics=HARD, decay=0.25, num_steps=4, backend="compiled")
    assert sum(t.numel() * t.element_size() for t in saved) == x.numel() * x.element_size()


def test_within_a_compiled_model_it_matches_too():
    x = random(8, 3, 5, 5).to(memory_format=torch.channels_last)

    def layer(x, backend):
        spikes, _ = ops.multi_step(x.unflatten(0, (4, 2)), dynamics=HARD, decay=0.25, num_steps=4, backend=backend)
        return spikes.flatten(0, 1)

    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = layer(a, "reference")
    got = torch.compile(layer, fullgraph=True)(b, "compiled")
    assert torch.equal(got, expected)
    weights = random(*expected.shape, seed=1)
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    torch.testing.assert_close(b.grad, a.grad)


@pytest.mark.parametrize("backend", ["reference", "compiled"])
def test_gradients_by_torch_func_and_batched(backend):
    """What transforms make of the functions is what backward does."""
    torch.manual_seed(0)
    x, weight = (torch.randn(3, 4, 5, dtype=torch.float64) for _ in range(2))

    def run(x):
        return ops.multi_step(x, dynamics=HARD, decay=0.5, num_steps=3, backend=backend)[0]

    def gradient(grad):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(run(leaf), leaf, grad)[0]

    torch.testing.assert_close(torch.func.grad(lambda x: (run(x) * weight).sum())(x), gradient(weight))
    leaf = x.clone().requires_grad_()
    many = torch.randn(6, 3, 4, 5, dtype=torch.float64)
    (batched,) = torch.autograd.grad(run(leaf), leaf, many, is_grads_batched=True)
    assert torch.equal(batched, torch.stack([gradient(grad) for grad in many]))


def test_transforms_of_transforms_are_those_of_the_definition():
    """A second derivative by the kernels would be zero, and none of them can be mapped."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 3), (5, 4, 3)))

    def loss(weight, x, backend):
        spikes, _ = ops.multi_step(x @ weight, dynamics=SOFT, decay=0.5, num_steps=4, backend=backend)
        return (spikes * x).sum().square()

    got, expected = (
        torch.func.jacrev(torch.func.jacrev(loss))(weight, x[0], backend) for backend in ("compiled", "reference")
    )
    assert expected.abs().sum() > 1
    torch.testing.assert_close(got, expected)
    by_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, None))(weight, x, "compiled")
    one_by_one = torch.stack([torch.func.grad(loss)(weight, sample, "reference") for sample in x])
    torch.testing.assert_close(by_sample, one_by_one)


def test_a_second_derivative_is_refused_and_not_zero():
    x = random(4, 3).requires_grad_()

    def gradient(backend):
        spikes, _ = ops.multi_step(x, dynamics=SOFT, decay=0.5, num_steps=4, backend=backend)
        return torch.autograd.grad(spikes.sum(), x, create_graph=True)[0]

    (second,) = torch.autograd.grad(gradient("reference").sum(), x)
    assert second.abs().sum() > 0
    with pytest.raises(ValueError, match=r"create_graph=True.*backend='reference'"):
        gradient("compiled")


@pytest.mark.parametrize("backend", ["reference", "compiled"])
@pytest.mark.parametrize("shape", [(4, 3), (1, 4), (2, 4), (12,), ()])
def test_a_membrane_of_another_shape_is_refused(shape, backend):
    with pytest.raises(ValueError, match=r"a membrane of shape .* for an input of shape \[3, 4\] per step"):
        ops.multi_step(
            torch.ones(1, 3, 4), dynamics=HARD, decay=0.5, num_steps=1, initial=torch.ones(shape), backend=backend
        )
