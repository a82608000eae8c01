import pytest

from shortback.recipes.load import load_recipe
from shortback.runs.folder import RunFolder

RECIPE = load_recipe("quickstart", settings=["compare="])


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start(RECIPE, overwrite=False)
    return folder


def test_a_new_folder(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    folder.check(RECIPE, resume=False, overwrite=False)
    assert not folder.path.exists()
    folder.start(RECIPE, overwrite=False)
    assert folder.read_recipe() == RECIPE
    assert not folder.is_finished
    folder.write_summary({"test_accuracy": 0.5})
    assert folder.is_finished
    assert folder.read_summary() == {"test_accuracy": 0.5}


def test_an_unfinished_run_wants_to_be_told(folder):
    with pytest.raises(ValueError, match="an unfinished run: add --resume to go on with it, --overwrite"):
        folder.check(RECIPE, resume=False, overwrite=False)
    folder.check(RECIPE, resume=True, overwrite=False)
    folder.check(RECIPE, resume=False, overwrite=True)


def test_a_finished_run_is_refused_unless_told(folder):
    folder.write_summary({})
    with pytest.raises(ValueError, match="a finished run: add --overwrite to start again"):
        folder.check(RECIPE, resume=False, overwrite=False)


def test_resuming_another_recipe_says_what_differs(folder):
    other = load_recipe("quickstart", settings=["compare=", "train.epochs=99"])
    with pytest.raises(ValueError, match=r"train\.epochs: 99, "):
        folder.check(other, resume=True, overwrite=False)


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(folder):
    mine = folder.path / "notes.txt"
    mine.write_text("mine")
    folder.write_summary({})
    folder.metrics.write_text("{}\n")
    folder.checkpoints.mkdir()
    (folder.checkpoints / "last.pt").write_text("")
    folder.start(RECIPE, overwrite=True)
    assert sorted(p.name for p in folder.path.iterdir()) == ["notes.txt", "recipe.yaml"]


def test_folders_that_are_none_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "file").check(RECIPE, resume=False, overwrite=False)
    with pytest.raises(ValueError, match="holds no run; name another folder"):
        RunFolder(tmp_path).check(RECIPE, resume=False, overwrite=True)
    with pytest.raises(ValueError, match="holds no run"):
        RunFolder(tmp_path).read_recipe()
