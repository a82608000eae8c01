import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shortback.losses import TET, CrossEntropy, ShortcutLoss, classes_of, shortcut_loss
from shortback.outputs import Outputs

LOG2 = 0.6931471805599453


def outputs():
    """Two classes, so that the cross entropies are log(1 + e^-d) of a difference d."""
    main = torch.zeros(4, 2)
    return Outputs(main, {"a": torch.tensor([[1.0, 0.0]]).expand(4, 2), "b": torch.tensor([[0.0, 1.0]]).expand(4, 2)})


A = 0.31326168751822286  # log(1 + e^-1)
B = 1.3132616875182228  # log(1 + e)
TARGET = torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("combine", "weights", "total"),
    [
        # One cross entropy of 0.3 (1, 0) + 0.3 (0, 1), whose classes are equal, and of 0.3 times the mean.
        ("logits", "sum", LOG2),
        ("logits", "mean", LOG2),
        ("additive", "sum", LOG2 + 0.3 * (A + B)),
        ("additive", "mean", LOG2 + 0.3 * (A + B) / 2),
        ("convex", "sum", 0.7 * LOG2 + 0.3 * (A + B)),
        ("convex", "mean", 0.7 * LOG2 + 0.3 * (A + B) / 2),
    ],
)
def test_combinations_by_hand(combine, weights, total):
    for coefficient in (0.3, torch.tensor(0.3)):
        terms = shortcut_loss(outputs(), TARGET, coefficient=coefficient, combine=combine, branch_weights=weights)
        assert terms.total.item() == pytest.approx(total, rel=1e-6)
        assert terms.main.item() == pytest.approx(LOG2)
        assert {k: v.item() for k, v in terms.branches.items()} == pytest.approx({"a": A, "b": B})


@pytest.mark.parametrize("weights", ["sum", "mean"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (5, 4, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_papers_form_by_hand(weights, soft, shape, smoothing):
    """Equation 10 in float64: log of the sum of exponentials minus the mean of the target's logits, and its gradient.

    dL/dO is (softmax - target) / N, and 1/T of it at each of T steps; dL/dO_k is c w_k times that.
    """
    generator = torch.Generator().manual_seed(0)
    main, a, b = (torch.randn(*s, generator=generator).double() for s in (shape, (4, 3), (4, 3)))
    target = torch.tensor([0, 2, 1, 1])
    hot = F.one_hot(target, 3).double()
    if soft:
        hot = torch.softmax(torch.randn(4, 3, generator=generator).double(), 1)
        target = hot
    expected_target = (1 - smoothing) * hot + smoothing / 3
    c, w = 0.25, 1.0 if weights == "sum" else 0.5
    steps = main if main.ndim == 3 else main[None]
    summed = sum(step for step in steps) / len(steps) + c * w * (a + b)
    expected = (summed.exp().sum(1).log() - (expected_target * summed).sum(1)).mean()
    delta = (summed.exp() / summed.exp().sum(1, keepdim=True) - expected_target) / 4

    leaves = [t.clone().requires_grad_() for t in (main, a, b)]
    out = Outputs(leaves[0], {"a": leaves[1], "b": leaves[2]})
    terms = shortcut_loss(out, target, coefficient=c, branch_weights=weights, label_smoothing=smoothing)
    assert terms.total.dtype == torch.float64
    torch.testing.assert_close(terms.total, expected)
    gradients = torch.autograd.grad(terms.total, leaves)
    torch.testing.assert_close(gradients[0], (delta / len(steps)).expand(shape) if main.ndim == 3 else delta)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, c * w * delta)
    alone = sum(step for step in steps) / len(steps)
    torch.testing.assert_close(terms.main, (alone.exp().sum(1).log() - (expected_target * alone).sum(1)).mean())
    assert not any(term.requires_grad for term in (terms.main, *terms.branches.values()))


def test_shortcut_back_propagation_is_equation_7():
    out = outputs()
    terms = shortcut_loss(out, TARGET, coefficient=1.0)
    assert torch.equal(terms.total, F.cross_entropy(out.logits + out.branches["a"] + out.branches["b"], TARGET))


def test_branches_of_low_precision_are_added_up_in_that_of_the_main_output():
    branches = {str(k): torch.full((2, 3), 1 + k / 128, dtype=torch.bfloat16) for k in range(30)}
    combined = ShortcutLoss().combined_logits(Outputs(torch.zeros(2, 3), branches), coefficient=1.0)
    assert combined.dtype == torch.float32
    torch.testing.assert_close(combined, torch.full((2, 3), sum(1 + k / 128 for k in range(30))), rtol=0, atol=1e-5)


def test_tet_judges_every_step_with_the_branches_added():
    main, branch = torch.randn(5, 4, 3), torch.randn(4, 3)
    loss = ShortcutLoss(main=TET(weight=0.2))
    terms = loss(Outputs(main, {"a": branch}), TARGET, coefficient=0.5)
    torch.testing.assert_close(terms.total, TET(weight=0.2)(main + 0.5 * branch, TARGET))
    torch.testing.assert_close(terms.main, TET(weight=0.2)(main, TARGET))


def test_the_losses_of_branches_are_left_out_where_nobody_wants_them():
    assert ShortcutLoss()(outputs(), TARGET, coefficient=0.3, by_branch=False).branches == {}
    assert ShortcutLoss(combine="additive")(outputs(), TARGET, coefficient=0.3, by_branch=False).branches


@pytest.mark.parametrize(
    ("combine", "coefficient"), [("logits", -1), ("additive", -1.0), ("convex", 2.0), ("logits", float("nan"))]
)
def test_a_coefficient_outside_its_range_is_refused(combine, coefficient):
    with pytest.raises(ValueError, match=f"coefficient={coefficient}"):
        shortcut_loss(outputs(), TARGET, coefficient=coefficient, combine=combine)


def test_without_branches_the_total_is_the_main_loss():
    logits = torch.randn(4, 2)
    for out in (logits, Outputs(logits, {})):
        terms = shortcut_loss(out, TARGET, coefficient=0.7, combine="convex")
        assert terms.total is terms.main
        assert torch.equal(terms.total, F.cross_entropy(logits, TARGET))


def test_label_smoothing_and_soft_targets():
    logits = torch.randn(4, 3)
    hard = torch.tensor([0, 1, 2, 1])
    smooth = F.one_hot(hard, 3) * 0.9 + 0.1 / 3
    by_setting = CrossEntropy(label_smoothing=0.1)(logits, hard)
    torch.testing.assert_close(by_setting, CrossEntropy()(logits, smooth))


def test_cross_entropy_averages_logits_over_time():
    logits = torch.randn(5, 4, 3)
    assert torch.equal(CrossEntropy()(logits, TARGET), F.cross_entropy(logits.mean(0), TARGET))


def test_tet_by_hand():
    # Step 0: logits (0, 0), log 2; step 1: (1, 0), A. Regulariser: mean of (1, 1, 0, 1) = 0.75.
    logits = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]])
    loss = TET(weight=0.2, target_potential=1.0)(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.8 * (LOG2 + A) / 2 + 0.2 * 0.75)


def test_tet_needs_every_step():
    with pytest.raises(ValueError, match="readout to 'steps'"):
        TET()(torch.zeros(4, 2), TARGET)


def test_wrong_settings_are_refused():
    for make, message in (
        (lambda: CrossEntropy(label_smoothing=1.0), "label_smoothing"),
        (lambda: TET(weight=2.0), "weight"),
        (lambda: CrossEntropy(label_smoothing="0.1"), r"label_smoothing='0.1': must be a number in \[0, 1\)"),
        (lambda: TET(weight=None), r"weight=None: must be a number in \[0, 1\]"),
        (lambda: TET(target_potential="1"), "target_potential='1': must be a finite number"),
        (lambda: ShortcutLoss(combine="max"), "logits, additive, convex"),
        (lambda: ShortcutLoss(branch_weights="max"), "sum, mean"),
        (lambda: ShortcutLoss(main=nn.MSELoss), r"main=<class .*MSELoss\(\)"),
        (lambda: ShortcutLoss(branch="mse"), "branch='mse': must be a function"),
        (lambda: shortcut_loss((torch.zeros(4, 2), {}), TARGET, coefficient=1.0), "got tuple as outputs: pass logits"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("combine", ["logits", "additive"])
def test_branches_are_smoothed_as_the_main_output_is(combine):
    outputs, y = Outputs(torch.randn(4, 3), {"a": torch.randn(4, 3)}), torch.tensor([0, 1, 2, 0])
    by_class = ShortcutLoss(main=CrossEntropy(label_smoothing=0.2), combine=combine)(outputs, y, coefficient=0.5)
    by_function = shortcut_loss(outputs, y, coefficient=0.5, combine=combine, label_smoothing=0.2)
    assert torch.equal(by_class.total, by_function.total)
    assert torch.equal(by_class.branches["a"], by_function.branches["a"])
    expected = F.cross_entropy(outputs.branches["a"], y, label_smoothing=0.2)
    assert torch.equal(by_class.branches["a"], expected)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), nn.PoissonNLLLoss()])
def test_whole_numbers_are_not_stretched_to_the_outputs_either(loss):
    numbers = torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"outputs of shape \[4, 1\] and targets of shape \[4\], .* broadcast"):
        ShortcutLoss(main=loss)(torch.randn(4, 1), numbers, coefficient=1.0)
    assert ShortcutLoss(main=loss)(torch.randn(4, 1), numbers[:, None], coefficient=1.0).total.isfinite()
    classes = ShortcutLoss(main=nn.MultiMarginLoss())(torch.randn(4, 3), numbers, coefficient=1.0)
    assert classes.total.isfinite()


@pytest.mark.parametrize("combine", ["logits", "additive"])
def test_a_loss_of_steps_sees_branches_at_every_step(combine):
    """With as many samples as steps, and one read as the other, it would be another number and no error."""
    T, N, K = 4, 4, 3
    main = torch.arange(T * N * K).reshape(T, N, K).remainder(2).float().requires_grad_()
    branch = torch.tensor([[0.5, 0.0, 1.0]] * 2 + [[2.0, 1.0, 0.0]] * 2, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0])
    hot = F.one_hot(y, K).float()

    def of_rates(spikes, y):
        assert spikes.shape == (T, N, K)
        return F.mse_loss(spikes.mean(0), F.one_hot(y, K).float())

    def of_counts(spikes, y):
        return F.mse_loss(spikes.sum(0), T * F.one_hot(y, K).float())

    for loss, expected in ((of_rates, (branch - hot).square().mean()), (of_counts, (T * (branch - hot)).pow(2).mean())):
        terms = ShortcutLoss(main=loss, combine=combine)(Outputs(main, {"a": branch}), y, coefficient=0.5)
        assert terms.branches["a"].item() == pytest.approx(expected.item())
        if combine == "additive":
            assert terms.total.item() == pytest.approx(loss(main, y).item() + 0.5 * expected.item())
            (gradient,) = torch.autograd.grad(terms.total, branch)
            (by_hand,) = torch.autograd.grad(0.5 * expected, branch)
            torch.testing.assert_close(gradient, by_hand)


def test_a_loss_for_branches_sees_them_as_they_are():
    shapes = []

    def seen(logits, y):
        shapes.append(tuple(logits.shape))
        return logits.mean()

    outputs = Outputs(torch.zeros(5, 4, 3), {"a": torch.zeros(4, 3)})
    ShortcutLoss(main=nn.MSELoss(), branch=seen)(outputs, torch.zeros(4, 3), coefficient=1.0)
    assert shapes == [(4, 3)]


def test_tet_for_branches_too_sees_their_steps():
    entropy, tet = CrossEntropy(), TET(weight=0.0)
    outputs = Outputs(torch.zeros(5, 4, 2), {"a": torch.tensor([[1.0, 0.0]]).expand(4, 2)})
    all_three = (entropy, tet, TET(weight=0.0, target_potential=2.0))  # the last is of the same class
    terms = [ShortcutLoss(main=tet, branch=loss)(outputs, TARGET, coefficient=1.0) for loss in all_three]
    assert [each.branches["a"].item() for each in terms] == pytest.approx([A, A, A])


def test_a_loss_of_one_output_is_taken_for_the_main_one():
    tet = TET()
    assert ShortcutLoss.of(tet) == ShortcutLoss(main=tet)
    assert ShortcutLoss.of(None) == ShortcutLoss()
    own = ShortcutLoss(combine="additive")
    assert ShortcutLoss.of(own) is own
    with pytest.raises(ValueError, match="must be a function of outputs and targets"):
        ShortcutLoss.of("cross entropy")


@pytest.mark.parametrize("combine", ["logits", "additive"])
@pytest.mark.parametrize("name", ["ce_rate_loss", "ce_count_loss", "mse_count_loss", "mse_membrane_loss"])
def test_losses_of_snntorch(name, combine):
    loss = getattr(pytest.importorskip("snntorch.functional"), name)()
    T, N, K = 5, 5, 10
    generator = torch.Generator().manual_seed(0)
    main = torch.randint(0, 2, (T, N, K), generator=generator).float().requires_grad_()
    branch = torch.randn(N, K, generator=generator, requires_grad=True)
    y = torch.arange(N)
    for given in (None, getattr(pytest.importorskip("snntorch.functional"), name)()):
        both = ShortcutLoss(main=loss, branch=given, combine=combine)
        terms = both(Outputs(main, {"a": branch}), y, coefficient=0.5)
        assert terms.branches["a"].item() == pytest.approx(loss(torch.stack([branch] * T), y).item())
        terms.total.backward()
    assert branch.grad is not None


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.NLLLoss(), r"NLLLoss takes .*use torch\.nn\.CrossEntropyLoss\(\): log_softmax leaves log-prob"),
        (F.nll_loss, r"nll_loss takes .*use torch\.nn\.CrossEntropyLoss\(\)"),
        (functools.partial(F.nll_loss, ignore_index=3), "nll_loss takes"),
        (nn.KLDivLoss(reduction="batchmean"), r"use torch\.nn\.CrossEntropyLoss\(\), which takes probabilities"),
        (functools.partial(F.kl_div, reduction="batchmean"), "kl_div takes"),
        (nn.BCELoss(), r"use torch\.nn\.BCEWithLogitsLoss\(\), and a network without the sigmoid"),
        (F.binary_cross_entropy, "binary_cross_entropy takes"),
    ],
)
@pytest.mark.parametrize("combine", ["logits", "additive"])
def test_losses_of_probabilities_are_refused_with_branches_alone(loss, message, combine):
    """The negative log-likelihood of a sum has no lower bound, and nothing would be learned without an error."""
    probabilities = torch.full((4, 2), 0.5)
    target = TARGET if "nll" in str(loss).lower() else probabilities
    with pytest.raises(ValueError, match=message):
        ShortcutLoss(main=loss, combine=combine)(outputs(), target, coefficient=0.5)
    alone = ShortcutLoss(main=loss)(probabilities, target, coefficient=0.5)
    assert torch.equal(alone.total, loss(probabilities, target))


def test_losses_of_probabilities_are_taken_where_heads_or_losses_make_some():
    logits, y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3
    usual = ShortcutLoss(combine="additive")(Outputs(logits[0], {"a": logits[1]}), y, coefficient=0.5)
    made = Outputs(logits[0].log_softmax(1), {"a": logits[1].log_softmax(1)})

    class OfLogits(nn.NLLLoss):
        def forward(self, input, target):
            return super().forward(input.log_softmax(1), target)

    for loss, outputs in (
        (ShortcutLoss(main=nn.NLLLoss(), branch=nn.NLLLoss(), combine="additive"), made),
        (ShortcutLoss(main=nn.NLLLoss(), branch=nn.CrossEntropyLoss(), combine="additive"), made),
        (ShortcutLoss(main=OfLogits(), combine="additive"), Outputs(logits[0], {"a": logits[1]})),
    ):
        torch.testing.assert_close(loss(outputs, y, coefficient=0.5).total, usual.total)


def test_branches_that_cannot_be_added_are_named():
    made = Outputs(torch.zeros(4, 3), {"a": torch.zeros(4, 3), "b": torch.zeros(4, 1)})
    with pytest.raises(ValueError, match="the branch at b has 1 outputs, and the network 3"):
        ShortcutLoss()(made, torch.zeros(4, dtype=torch.long), coefficient=0.5)

    def own(logits, y):  # of embeddings
        return logits.square().mean()

    assert ShortcutLoss(branch=own, combine="additive")(made, torch.zeros(4, dtype=torch.long), coefficient=0.5)


def test_what_is_advised_in_their_place_has_their_gradients():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    probabilities = torch.softmax(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), 1)
    of_log = F.log_softmax(logits, 1)
    for loss, target in ((nn.NLLLoss(), torch.arange(4) % 3), (nn.KLDivLoss(reduction="batchmean"), probabilities)):
        (theirs,) = torch.autograd.grad(loss(of_log, target), logits, retain_graph=True)
        (advised,) = torch.autograd.grad(nn.CrossEntropyLoss()(of_log, target), logits, retain_graph=True)
        torch.testing.assert_close(advised, theirs)


def test_two_partials_are_alike_where_their_function_is():
    """A loss of steps is shown branches at every step, and one of another function as they are."""
    shapes = []

    def of_steps(logits, y, *, weight):
        shapes.append(tuple(logits.shape))
        return weight * logits.mean()

    def of_classes(logits, y, *, weight):
        return of_steps(logits, y, weight=weight)

    main, outputs = functools.partial(of_steps, weight=1.0), Outputs(torch.zeros(5, 4, 3), {"a": torch.zeros(4, 3)})
    for branch in (functools.partial(of_classes, weight=2.0), functools.partial(of_steps, weight=2.0), of_steps):
        if branch is of_steps:
            branch = functools.partial(branch, weight=3.0)
        ShortcutLoss(main=main, branch=branch, combine="additive")(outputs, TARGET, coefficient=1.0)
    assert shapes == [(5, 4, 3), (4, 3), (5, 4, 3), (5, 4, 3), (5, 4, 3), (5, 4, 3)]


@pytest.mark.parametrize("coefficient", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.int64(1)])
def test_a_coefficient_may_be_a_number_of_numpy(coefficient):
    for combine in ("logits", "additive", "convex"):
        main = torch.zeros(4, 2, requires_grad=True)
        terms = shortcut_loss(outputs()._replace(logits=main), TARGET, coefficient=coefficient, combine=combine)
        expected = shortcut_loss(outputs(), TARGET, coefficient=float(coefficient), combine=combine)
        assert terms.total.item() == pytest.approx(expected.total.item())


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_losses_of_several_labels_take_whole_numbers(dtype):
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1]])
    listed = torch.tensor([[1, 2, -1, -1], [0, -1, -1, -1], [2, 3, -1, -1]])  # the same, by number
    for loss, whole, exact in (
        (nn.MultiLabelSoftMarginLoss(), labels, labels.float()),
        (nn.SoftMarginLoss(), 2 * labels - 1, 2.0 * labels - 1),
        (nn.MultiLabelMarginLoss(), listed, listed),
    ):
        both = Outputs(logits, {"a": logits})
        terms = ShortcutLoss(main=loss)(both, whole.to(dtype), coefficient=0.5)
        assert terms.main.item() == pytest.approx(loss(logits, exact).item())
        assert classes_of(whole.to(dtype), loss=loss) is None
