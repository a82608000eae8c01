import os
import signal
import subprocess
import sys
import time

import pytest

from shortback.data.events import workers
from shortback.data.events.workers import KilledError, results_of

pytestmark = [
    pytest.mark.timeout(60),  # a process that is waited for would be for ever
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),  # by a Python of 3.12 or later
]


@pytest.fixture(autouse=True)
def two_processes(monkeypatch):
    monkeypatch.setattr(workers, "num_cores", lambda: 2)
    monkeypatch.setattr(workers, "CHUNK", 3)


def negated(number):
    return -number, os.getpid()


def test_every_item_has_its_result_once():
    with results_of(negated, range(200)) as results:
        found = list(results)
    assert sorted(number for number, _ in found) == list(range(-199, 1))
    assert os.getpid() not in {process for _, process in found}


def test_few_items_are_done_here_one_by_one():
    with results_of(negated, range(63)) as results:
        assert next(results) == (0, os.getpid())


def killed(number):
    if number == 100:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_is_killed_is_not_waited_for():
    found = []
    with pytest.raises(KilledError, match="a process was killed") as raised, results_of(killed, range(200)) as results:
        found.extend(results)
    assert raised.value.at == [100]
    assert len(found) >= 3 * 32  # of the 33 chunks before that of 100, the other process had one at most
    assert 100 not in found


def killed_beside_another(number):
    if number == 0:
        time.sleep(20)
    return killed(number)


def test_the_others_end_too_whatever_the_parent_does_at_a_signal():
    """The pool ends them by a signal that a training has a handler for."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    start = time.monotonic()
    try:
        with pytest.raises(ChildProcessError), results_of(killed_beside_another, range(200)) as results:
            list(results)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - start < 10


def ended(number):
    if number == 150:
        os._exit(3)
    return number


def test_what_a_process_that_ended_itself_was_at_is_known_and_what_others_were_at_is_not_named(monkeypatch):
    monkeypatch.setattr(workers, "num_cores", lambda: 3)
    with pytest.raises(KilledError) as raised, results_of(ended, range(200)) as results:
        list(results)
    assert raised.value.at == [150]


def interrupted(number):
    os.kill(os.getpid(), signal.SIGINT)
    return number


def test_interrupts_are_left_to_the_parent():
    with results_of(interrupted, range(64)) as results:
        assert sorted(results) == list(range(64))


def slow(number):
    time.sleep(0.2)
    return number


def test_an_interrupt_ends_the_processes_at_once(monkeypatch):
    monkeypatch.setattr(workers, "CHUNK", 50)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), results_of(slow, range(200)) as results:
            list(results)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 6  # each process has 10 seconds of its first chunk to go, and 10 of another


def test_processes_end_when_the_parent_is_killed():
    code = (
        "import functools, time; from shortback.data.events import workers; workers.num_cores = lambda: 2\n"
        "with workers.results_of(functools.partial(print, flush=True), range(64)) as results:\n"
        "    next(results); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        parent.stdout.read()  # ends when the last process that has it open does


def broken(number):
    raise OSError(f"no space for {number}")


def test_what_a_job_raises_is_raised():
    with pytest.raises(OSError, match="no space for"), results_of(broken, range(200)) as results:
        list(results)
