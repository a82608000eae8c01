from shortback.runs.rehearsal import Rehearsal, seconds_a_step
from tests.runs.test_train import tiny


def test_a_step_trains():
    rehearsal = Rehearsal(tiny("method=shortcut"))
    rehearsal.build()
    losses = [rehearsal.step().item() for _ in range(6)]
    assert losses[-1] < losses[0]
    rehearsal.begin_epoch()


def test_how_long_it_will_take():
    seconds, steps = seconds_a_step(tiny("method=vanilla"))
    assert 0 < seconds < 10
    assert steps == 2 * (180 // 20)
