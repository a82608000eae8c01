import pytest

from shortback.recipes.load import RecipeError, load_recipe


def test_all_errors_are_reported_at_once_with_their_paths():
    settings = ["model.num_steps=0", "model.name=resnet21", "train.epohs=3", "branches.start=-1", "optimizer.lr=fast"]
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", settings=settings)
    message = str(caught.value)
    assert "5 problems" in message
    assert "model.num_steps: Input should be greater than or equal to 1, got 0" in message
    assert "model.name: no such model; the nearest are resnet32, resnet20, resnet19, got 'resnet21'" in message
    assert "train.epohs: unknown key; the nearest are epochs" in message
    assert "branches.start: Input should be greater than or equal to 0, got -1" in message
    assert "optimizer.lr: Input should be a valid number" in message


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("branches.at=3", "branches.at: Input should be a valid string, or a valid list, got 3"),
        ("branches.at=[layer1, 2]", "branches.at.1: Input should be a valid string, got 2"),
        (
            "data.num_workers=-1",
            "data.num_workers: Input should be greater than or equal to 0, or 'auto', got -1",
        ),
        ("train.device=gpu", "train.device: Input should be 'cpu' or 'cuda', or 'auto', got 'gpu'"),
        (
            "model.neuron.surrogate.kind=triangle",
            "model.neuron.surrogate.kind: Input should be 'rectangular', 'triangular', 'arctan', 'sigmoid', "
            "'fast_sigmoid' or 'tanh_window', got 'triangle'; the nearest are triangular, ",
        ),
        ("data.frames=3", "data.frames: has keys of its own: size, by, resize, values, keep_aspect, got 3"),
        ("data.frames.sise=3", "data.frames.sise: unknown key; the nearest are size, resize"),
        ("batch_size=64", "batch_size: unknown key; the nearest are train.batch_size"),
        ("epochs=3", "epochs: unknown key; the nearest are train.epochs"),
        ("train.lr=1", "train.lr: unknown key; the nearest are optimizer.lr"),
        ("kind=lif", "kind: unknown key; the nearest are model.neuron.kind, model.neuron.surrogate.kind, data.kind"),
        ("data.root=3", "data.root: Input should be a path, got 3"),
    ],
)
def test_a_mistake_is_one_line_with_the_key_as_it_is_written(setting, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", settings=["compare=null", setting])
    first, line = str(caught.value).splitlines()
    assert first == "quickstart: 1 problem"
    assert line.startswith(f"  {message}")
