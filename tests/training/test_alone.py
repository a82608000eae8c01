import multiprocessing

import pytest

from shortback.training.alone import locked_folder


def _try(folder, monkeypatch_patience, pipe):
    from shortback.training import alone

    alone.PATIENCE = monkeypatch_patience
    try:
        with alone.locked_folder(folder):
            pipe.send("in")
    except ValueError as error:
        pipe.send(str(error))


def tried(folder):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_try, args=(folder, 0.1, theirs))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def test_the_second_is_refused_and_comes_in_afterwards(tmp_path):
    folder = tmp_path / "run"
    with locked_folder(folder):
        assert tried(folder) == f"another process is training in {folder}: wait for it, or name another folder"
    assert tried(folder) == "in"


def test_it_ends_with_an_error_too(tmp_path):
    def fail():
        with locked_folder(tmp_path):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with locked_folder(tmp_path):
        pass
