import shutil

import pytest

from shortback.recipes.load import differences, load_recipe
from shortback.runs.folder import RunFolder, with_places

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
    with pytest.raises(ValueError, match=r"train\.epochs: 99, ") as refused:
        folder.check(other, resume=True, overwrite=False)
    *_, last = str(refused.value).splitlines()
    assert last.startswith("The learning rate and the coefficient depend on the number of epochs")
    assert last.endswith("To train by this recipe, name another folder with --out")
    folder.weights.touch()
    other = load_recipe("quickstart", settings=["compare=", "seed=1"])
    with pytest.raises(ValueError, match=r"seed: 1, 0\nTo train by .* sb\.load_weights\(net, '.*model\.safetensors'\)"):
        folder.check(other, resume=True, overwrite=False)


def test_a_folder_of_several_runs_names_them(tmp_path):
    for name in ("vanilla", "evolutionary"):
        RunFolder(tmp_path / name).start(RECIPE, overwrite=False)
    named = f"{tmp_path}/evolutionary, {tmp_path}/vanilla"
    with pytest.raises(ValueError, match=f"holds several runs: name one of {named}$"):
        RunFolder(tmp_path).read_recipe()


@pytest.fixture
def refused(folder):
    """What a training leaves whose first batch could not be made."""
    (folder.path / ".lock").touch()
    folder.checkpoints.mkdir()
    folder.metrics.touch()
    return folder


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_which_nothing_was_trained_gives_way_to_another_recipe(refused, resume):
    other = load_recipe("quickstart", settings=["compare=", "train.batch_size=8"])
    refused.check(other, resume=resume, overwrite=False)
    refused.start(other, overwrite=False)
    assert refused.read_recipe() == other


def test_one_that_has_written_a_row_or_a_checkpoint_does_not(refused):
    (refused.checkpoints / ".last.pt.123.tmp").touch()
    refused.check(RECIPE, resume=False, overwrite=False)
    refused.metrics.write_text("{}\n")
    with pytest.raises(ValueError, match="an unfinished run"):
        refused.check(RECIPE, resume=False, overwrite=False)
    refused.metrics.write_text("")
    (refused.checkpoints / "last.pt").touch()
    with pytest.raises(ValueError, match="an unfinished run"):
        refused.check(RECIPE, resume=False, overwrite=False)


def test_places_are_those_of_a_run_that_has_begun(refused):
    auto = with_places(RECIPE, "auto")
    refused.start(with_places(RECIPE, ["layer1"]), overwrite=False)
    assert refused.placed(auto).branches.at == "auto"
    refused.metrics.write_text("{}\n")
    assert refused.placed(auto).branches.at == ["layer1"]


WITHOUT_EFFECT = ["data.root=elsewhere", "data.cache_dir=c", "data.num_workers=3", "train.log_every=7"]
WITHOUT_EFFECT += ["train.checkpoint_every=5", "train.loggers=[csv]", "health.every=null"]


def test_resuming_with_settings_that_change_no_weight(folder):
    other = load_recipe("quickstart", settings=["compare=", *WITHOUT_EFFECT])
    assert len(differences(other, RECIPE)) == len(WITHOUT_EFFECT)
    folder.check(other, resume=True, overwrite=False)
    for setting in ("seed=3", "method=vanilla", "optimizer.lr=0.01"):
        another = load_recipe("quickstart", settings=["compare=", *WITHOUT_EFFECT, setting])
        with pytest.raises(ValueError, match=rf"\(asked for, there\):\n  {setting.partition('=')[0]}: .*\nTo train by"):
            folder.check(another, resume=True, overwrite=False)


def test_where_the_coefficient_follows_what_is_measured_it_matters_how_often(tmp_path):
    adaptive = ["compare=", "branches.schedule=adaptive"]
    folder = RunFolder(tmp_path)
    folder.start(load_recipe("quickstart", settings=adaptive), overwrite=False)
    folder.metrics.write_text("{}\n")
    with pytest.raises(ValueError, match=r"\n  health.every: None, 200\nTo train by"):
        folder.check(load_recipe("quickstart", settings=[*adaptive, "health.every=null"]), resume=True, overwrite=False)


def test_killed_while_it_overwrites_it_still_holds_a_run(folder, monkeypatch):
    folder.write_summary({})
    folder.metrics.write_text("{}\n")

    def kill(path, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", kill)
    with pytest.raises(KeyboardInterrupt):
        folder.start(RECIPE, overwrite=True)
    assert not folder.metrics.exists()
    folder.check(RECIPE, resume=False, overwrite=True)


def test_half_files_of_a_run_that_was_killed_are_nothing_and_go(tmp_path):
    folder = RunFolder(tmp_path)
    halves = [tmp_path / ".recipe.yaml.1234.tmp", folder.checkpoints / ".last.pt.99.tmp"]
    halves[0].touch()
    folder.check(RECIPE, resume=False, overwrite=False)
    folder.checkpoints.mkdir()
    halves[1].touch()
    mine = [tmp_path / ".mine.tmp", folder.checkpoints / "mine.1.tmp"]
    for file in mine:
        file.touch()
    folder.start(RECIPE, overwrite=False)
    assert [file.exists() for file in (*halves, *mine)] == [False, False, True, True]


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
