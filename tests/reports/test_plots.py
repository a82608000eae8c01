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
