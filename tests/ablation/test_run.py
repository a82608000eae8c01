from shortback.ablation.run import read_run
from shortback.recipes.load import load_recipe
from shortback.runs.folder import RunFolder


def test_folders_are_read_whatever_is_in_them(tmp_path):
    folder = tmp_path / "vanilla-seed0"
    assert read_run((), "vanilla", 0, folder, within=tmp_path).status == "not begun"
    folder.mkdir()
    (folder / "error.txt").write_text("ValueError: no\n")
    failed = read_run((), "vanilla", 0, folder, within=tmp_path)
    assert (failed.status, failed.error, failed.folder) == ("failed", "ValueError: no", "vanilla-seed0")
    (folder / "error.txt").unlink()
    (folder / "metrics.jsonl").write_text('{"kind": "epoch", "step": 1}\n{"kind": "step", "step": 2}\n{"a": {}')
    unfinished = read_run((), "vanilla", 0, folder, within=tmp_path)
    assert (unfinished.status, len(unfinished.epochs), unfinished.last["step"]) == ("unfinished", 1, 2)
    (folder / "summary.json").write_text('{"test_accuracy": 0.5}')
    assert read_run((), "vanilla", 0, folder, within=tmp_path).status == "finished"


def test_the_recipe_does_not_say_where_the_data_lies(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start(load_recipe("quickstart", settings=["compare=null", "data.root=/somewhere"]), overwrite=False)
    found = read_run((("optimizer.lr", "0.1"),), "vanilla", 0, folder.path, within=tmp_path)
    assert found.recipe["data"]["root"] is None
    assert found.recipe["model"]["name"] == "resnet32"
    assert found.setting == "optimizer.lr=0.1"
