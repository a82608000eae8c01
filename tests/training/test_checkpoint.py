import logging
import pickle

import pytest
import torch

from shortback.training.checkpoint import CheckpointError, CheckpointFolder


def test_the_newest_is_loaded_and_the_one_before_kept(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.load() is None
    for step in (1, 2, 3):
        folder.save({"step": step, "tensor": torch.full((3,), float(step))})
    assert folder.load()["step"] == 3
    assert torch.load(folder.previous, weights_only=True)["step"] == 2
    assert sorted(p.name for p in folder.folder.iterdir()) == ["last.pt", "previous.pt"]


def test_what_one_that_was_killed_left_is_deleted(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for name in (".last.pt.123.tmp", ".best.safetensors.7.tmp", ".mine.tmp"):
        (tmp_path / name).write_text("half")
    assert folder.load() is None
    assert len(list(tmp_path.iterdir())) == 3  # who only reads deletes nothing
    folder.save({"step": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.tmp", "last.pt"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, damage, caplog):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save({"step": step, "tensor": torch.zeros(1000)})
    content = bytearray(folder.last.read_bytes())
    if damage == "missing":
        folder.last.unlink()
    else:
        middle = len(content) // 2
        content[middle] ^= 0xFF
        cut = {"truncated": middle, "flipped": len(content), "empty": 0}[damage]
        folder.last.write_bytes(content[:cut])
    with caplog.at_level(logging.WARNING, logger="shortback"):
        assert folder.load()["step"] == 1
    assert (damage == "missing") == ("last.pt is damaged" not in caplog.text)


def test_when_all_are_damaged_it_says_so(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save({"step": 1})
    folder.last.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        folder.load()


class Code:
    def __reduce__(self):
        return print, ("run!",)


def test_pickled_code_is_refused_and_not_run(tmp_path, capsys):
    folder = CheckpointFolder(tmp_path)
    folder.save({"step": 1})
    torch.save({"step": Code()}, folder.last)
    with pytest.raises(CheckpointError, match="pickled code"):
        folder.load()
    folder.last.write_bytes(pickle.dumps(Code()))
    assert "run!" not in capsys.readouterr().out


def test_what_is_used_instead_is_said_only_if_there_is_something(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save({"step": step})
    for path in (folder.last, folder.previous):
        path.write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING, logger="shortback"), pytest.raises(CheckpointError):
        folder.load()
    assert [message.endswith("; using the one before it") for message in caplog.messages] == [True, False]
    folder.previous.unlink()
    with caplog.at_level(logging.WARNING, logger="shortback"), pytest.raises(CheckpointError):
        folder.load()
    assert "using" not in caplog.messages[-1]
