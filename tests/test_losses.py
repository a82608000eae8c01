import pytest
import torch
import torch.nn.functional as F

from shortback.losses import TET, CrossEntropy, Outputs, ShortcutLoss, shortcut_loss

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
        (lambda: ShortcutLoss(combine="max"), "additive, convex"),
        (lambda: ShortcutLoss(branch_weights="max"), "sum, mean"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
