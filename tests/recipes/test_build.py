import pytest
import torch

import shortback as sb
from shortback import schedules
from shortback.losses import TET
from shortback.neurons import IF, PLIF
from shortback.recipes import build
from shortback.recipes.load import load_recipe, recipe_names
from shortback.surrogates import Arctan, TanhWindow


def recipe(*settings):
    return load_recipe("cifar10-resnet20", settings=settings)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_built_and_steps_twice_on_tiny_data(name):
    settings = ["model.neuron.backend=reference", "model.num_steps=1", "model.width=0.0625", "compare="]
    tiny = load_recipe(name, settings=settings)
    size = 64 if tiny.model.stem == "imagenet" else 32
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, size, size), torch.arange(4)
    model = build.build_model(tiny.model, num_classes=4, in_channels=3)
    net = sb.attach(model, at=tiny.branches.at, sample=x)
    parts = build.build_training(tiny, net, steps_per_epoch=2)
    before = [p.detach().clone() for p in net.parameters()]
    for step in range(2):
        terms = parts.loss(net(x), y, coefficient=parts.schedule(step / 2))
        terms.total.backward()
        assert terms.total.isfinite()
        parts.optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert sb.strip(net) is model


def test_methods_are_schedules():
    branches = recipe("branches.start=0.5", "branches.coefficient=2.0", "branches.over=0.5").branches
    assert build.build_schedule("vanilla", branches) == schedules.Constant(value=0.0)
    assert build.build_schedule("shortcut", branches) == schedules.Constant(value=2.0)
    assert build.build_schedule("evolutionary", branches) == schedules.Linear(start=0.5, end=0.0, over=0.5)
    for kind, expected in (
        ("cosine", schedules.Cosine(start=0.25)),
        ("exponential", schedules.Exponential(start=0.25, rate=3.0)),
        ("step", schedules.Step(start=0.25, num_levels=5)),
    ):
        branches = recipe(f"branches.schedule={kind}", "branches.rate=3", "branches.num_levels=5").branches
        assert build.build_schedule("evolutionary", branches) == expected


def test_neurons():
    neuron = build.build_neuron(load_recipe("cifar10-resnet19-mpbn").model.neuron)(4)
    assert neuron.decay == 0.25
    assert neuron.dynamics.threshold == 0.5
    assert neuron.dynamics.surrogate == TanhWindow(half_width=0.5, slope=3.0)
    assert type(build.build_neuron(recipe("model.neuron.kind=plif").model.neuron)(4)) is PLIF
    settings = ("model.neuron.kind=if", "model.neuron.decay=null", "model.neuron.surrogate={kind: arctan, slope: 3}")
    integrate = build.build_neuron(recipe(*settings).model.neuron)(4)
    assert type(integrate) is IF
    assert integrate.dynamics.surrogate == Arctan(slope=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.neuron.surrogate={kind: arctan, half_width: 1}"], "arctan has no half_width"),
        (["model.neuron.kind=if"], "an IF neuron has none"),
        (["model.name=vgg11", "model.residual=sew"], "residual"),
        (["branches.at=[layr1]"], "the nearest are layer1"),
        (["data.augment={auto_augment: cifar10, rand_augment: 9}"], "exclude each other"),
        (["optimizer.warmup_epochs=400"], "must be shorter"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build.check_recipe(recipe(*settings))


def test_losses():
    loss = build.build_loss(
        *(getattr(recipe("loss.kind=tet", "loss.label_smoothing=0.1"), k) for k in ("loss", "branches"))
    )
    assert loss.main == TET(label_smoothing=0.1, weight=0.05)
    assert loss.branch.label_smoothing == 0.1


def test_resolved_recipes_leave_nothing_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settled, execution = build.resolve(recipe("data.root=here", "train.device=cpu"))
    assert settled.train.precision in ("fp32", "bf16")
    assert settled.train.device == execution.device == "cpu"
    assert settled.data.root == tmp_path / "here"


def test_validation_is_set_aside_by_the_seed_alone():
    data = load_recipe("quickstart").data
    a, b, other = (build.build_data(data, num_steps=4, seed=seed) for seed in (0, 0, 1))
    assert len(a.train) == 5400
    assert len(a.validation) == 600
    assert torch.equal(a.validation.indices, b.validation.indices)
    assert not torch.equal(a.validation.indices, other.validation.indices)
    assert torch.bincount(a.validation.labels).tolist() == [60] * 10
