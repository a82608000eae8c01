from shortback.reports import plots
from tests.health.test_plots import line


def test_a_run_has_pictures_of_its_rows():
    shares, relative = {"stem": 0.25, "fc": 0.0}, {"stem": 1e-3, "fc": 1e-1}
    rows = []
    for step in (1, 3, 5):
        layers = {"branch_share": shares, "relative": relative}
        rows.append({"kind": "health", "step": step, "layers": layers})
        rows.append({"kind": "step", "step": step + 1, "loss": 2.0, "main_loss": 1.0, "coefficient": 1 - step / 6})
    figures = plots.through_training(rows)
    assert list(figures) == [
        "Loss",
        "Balance coefficient",
        "Branch share of the first layer's gradient",
        "Gradient by layer through training",
    ]
    assert line(figures["Loss"], "main output") == [1.0] * 3
    assert line(figures["Branch share of the first layer's gradient"], "branches") == [0.25] * 3
    assert plots.through_training([]) == {}


def test_what_was_not_finite_is_left_out_of_the_pictures(tmp_path):
    def health(step, share, gradient):
        layers = {"branch_share": {"stem": share, "fc": share}, "relative": {"stem": gradient, "fc": gradient}}
        return {"kind": "health", "step": step, "layers": layers}

    means = {"kind": "step", "main_loss": 1.0, "coefficient": 1.0}
    rows = [health(1, 0.25, 1e-3), health(3, None, None), health(5, None, None)]
    rows += [{**means, "step": 2, "loss": 2.0}, {**means, "step": 4, "loss": None}]
    figures = plots.through_training(rows)
    shares = figures["Branch share of the first layer's gradient"]
    assert line(shares, "branches") == [0.25]
    assert line(shares, "main output") == [0.75]
    assert line(figures["Loss"], "whole loss") == [2.0]
    gradients = figures["Gradient by layer through training"]
    assert (line(gradients, "before step 1"), line(gradients, "before step 5")) == ([1e-3, 1e-3], [])
    for number, figure in enumerate(plots.through_training(rows[1:3]).values()):  # not one that is finite
        figure.savefig(tmp_path / f"{number}.png")


def test_a_run_without_shares_has_no_picture_of_them():
    rows = [{"kind": "health", "step": i, "layers": {"branch_share": {}, "relative": {"fc": 0.5}}} for i in (1, 3)]
    assert list(plots.through_training(rows)) == ["Gradient by layer through training"]
