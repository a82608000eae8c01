import pytest

from shortback.ablation.grid import Axis, build_grid, on_one_line


def grid(*, settings=(), methods=("vanilla", "evolutionary"), seeds=2, vary=()):
    axes = [Axis.parse(text) for text in vary]
    return build_grid("quickstart", settings=settings, methods=list(methods), seeds=seeds, axes=axes)


def test_a_cell_for_every_method_and_seed():
    cells = grid(settings=["seed=5", "train.epochs=1"])
    assert [str(cell.folder) for cell in cells] == [
        "vanilla-seed5",
        "evolutionary-seed5",
        "vanilla-seed6",
        "evolutionary-seed6",
    ]
    assert {cell.recipe.train.epochs for cell in cells} == {1}
    assert [(cell.recipe.method, cell.recipe.seed) for cell in cells] == [(cell.method, cell.seed) for cell in cells]
    assert all(cell.recipe.compare is None for cell in cells)


def test_axes_multiply_and_vanilla_has_no_branches_to_vary():
    cells = grid(seeds=1, vary=["branches.at=stages,blocks,[layer1, layer2.0]", "model.num_steps=1,2"])
    vanilla = [cell for cell in cells if cell.method == "vanilla"]
    assert [on_one_line(cell.settings) for cell in vanilla] == ["model.num_steps=1", "model.num_steps=2"]
    others = [cell for cell in cells if cell.method != "vanilla"]
    assert len(others) == 6
    assert others[-1].recipe.branches.at == ["layer1", "layer2.0"]
    assert on_one_line(others[-1].settings) == "branches.at=[layer1, layer2.0], model.num_steps=2"
    assert len({cell.folder for cell in cells}) == 8


def test_cells_that_their_method_makes_the_same_are_one():
    cells = grid(methods=["vanilla", "shortcut", "evolutionary"], seeds=1, vary=["branches.over=0.5,1.0"])
    assert [str(cell.folder) for cell in cells] == [
        "vanilla-seed0",
        "shortcut-seed0",
        "branches.over=0.5/evolutionary-seed0",
        "branches.over=1.0/evolutionary-seed0",
    ]
    cells = grid(seeds=1, vary=["branches={at: stages, combine: logits},{at: blocks, combine: logits}"])
    assert [cell.method for cell in cells] == ["vanilla", "evolutionary", "evolutionary"]
    assert cells[1].recipe.branches.at == "stages"


def test_values_are_yaml():
    assert Axis.parse("data.train_images=1000,null").values == (1000, None)
    assert Axis.parse("a=1e-1, off").values == (0.1, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ["vanila"]}, "no such method; the nearest are vanilla"),
        ({"methods": ["vanilla", "vanilla"]}, "given only once"),
        ({"seeds": 0}, "--seeds 0"),
        ({"vary": ["branches.att=blocks"]}, "the nearest are at"),
        ({"vary": ["model.num_steps=0"]}, "model.num_steps"),
        ({"vary": ["model.num_steps"]}, "write key=value,value"),
        ({"vary": ["model.num_steps=1,1"]}, "twice"),
        ({"vary": ["optimizer.lr=1e-2,0.01"]}, "twice"),
        ({"vary": ["branches.at=[layer1"]}, "--vary branches.at=.*not valid YAML"),
        ({"vary": ["seed=2001-99-99"]}, "--vary seed=.*not valid YAML"),
        ({"vary": ["seed=1,2"]}, "options of their own"),
        ({"vary": ["train.epochs=1", "train.epochs=2"]}, "given only once"),
    ],
)
def test_what_does_not_exist_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        grid(**arguments)


def test_a_grid_without_end_is_refused_before_it_is_built():
    values = ",".join(map(str, range(1, 1001)))
    with pytest.raises(ValueError, match="1000000 combinations of values"):
        grid(vary=[f"train.epochs={values}", f"model.num_steps={values}"])
    with pytest.raises(ValueError, match="2000 runs are more than 500: add --yes"):
        grid(seeds=1, vary=[f"train.epochs={values}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"settings": ["optimizer={kind: adamw}"], "vary": ["optimizer.momentum=0.1,0.9"]},
            "--vary optimizer.momentum=",
        ),
        ({"settings": ["optimizer={kind: adamw, momentum: 0.5}"]}, "-s optimizer.momentum=...: applies"),
        ({"vary": ["branches.rate=1,50"]}, "branches.rate=...: applies only to branches.schedule=exponential"),
        (
            {"vary": ["branches.schedule=linear,step", "branches.rate=1,50"]},
            "--vary branches.rate=...: applies only to branches",
        ),
        (
            {"vary": ["branches={combine: logits, rate: 2},{combine: logits, rate: 3}"]},
            "--vary branches.rate=...: applies only",
        ),
        (
            {"methods": ["shortcut"], "settings": ["branches.combine=logits"], "vary": ["branches.start=0.5,1"]},
            "branches.start=...: it has no effect on shortcut",
        ),
        (
            {
                "methods": ["vanilla", "shortcut"],
                "settings": ["branches.combine=additive", "branches.coefficient=1"],
                "vary": ["branches.start=0.5,1"],
            },
            "branches.start=...: it has no effect on shortcut",
        ),
        ({"vary": ["branches.coefficient=1,2"]}, "--vary branches.coefficient: it has no effect on vanilla, evol"),
        ({"methods": ["vanilla"], "vary": ["branches.at=stages,blocks"]}, "it has no effect on vanilla"),
        ({"settings": ["branches.coefficient=2"]}, "-s branches.coefficient=...: applies only to method=shortcut"),
    ],
)
def test_what_changes_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        grid(**{"seeds": 1, **arguments})


def test_a_setting_that_one_of_the_cells_heeds_is_for_that():
    cells = grid(methods=["vanilla", "shortcut", "evolutionary"], seeds=1, settings=["branches.coefficient=2"])
    assert len(cells) == 3
    schedules = ["branches.schedule=linear,exponential"]
    assert len(grid(methods=["evolutionary"], seeds=1, settings=["branches.rate=2"], vary=schedules)) == 2


def test_a_coefficient_that_follows_the_start_is_varied_by_it():
    cells = grid(
        methods=["vanilla", "shortcut", "evolutionary"],
        seeds=1,
        settings=["branches.combine=additive"],
        vary=["branches.start=0.5,1"],
    )
    assert [cell.method for cell in cells] == ["vanilla", "shortcut", "evolutionary", "shortcut", "evolutionary"]
    assert [cell.recipe.branches.coefficient for cell in cells if cell.method == "shortcut"] == [0.5, 1.0]
    cells = grid(methods=["shortcut"], seeds=1, vary=["branches.combine=logits,convex", "branches.start=0,0.5"])
    assert [on_one_line(cell.settings) for cell in cells] == [
        "branches.combine=logits",
        "branches.combine=convex, branches.start=0",
        "branches.combine=convex, branches.start=0.5",
    ]


@pytest.mark.parametrize(
    ("methods", "vary", "expected"),
    [
        (
            ["vanilla", "evolutionary"],
            ["branches.schedule=linear,exponential", "branches.rate=3,5"],
            ["", "schedule=linear", "schedule=exponential, rate=3", "schedule=exponential, rate=5"],
        ),
        (
            ["vanilla"],
            ["loss.kind=tet,cross_entropy", "loss.tet_weight=0.1,0.2"],
            ["kind=tet, tet_weight=0.1", "kind=tet, tet_weight=0.2", "kind=cross_entropy"],
        ),
        (
            ["shortcut", "evolutionary"],
            ["branches.start=0.25,1", "branches.schedule=linear,adaptive"],
            ["start=0.25", "start=0.25, schedule=linear", "schedule=adaptive", "start=1", "start=1, schedule=linear"],
        ),
        (
            ["shortcut"],
            ["branches={combine: additive, start: 0.5, end: 0.1},{combine: logits, start: 0.25, end: 0}"],
            ["branches={combine: additive, end: 0.1, start: 0.5}", "branches={combine: logits, end: 0, start: 0.25}"],
        ),
        (
            ["vanilla"],
            ["optimizer={kind: adamw, momentum: 0.5},{kind: sgd, momentum: 0.5}"],
            ["optimizer={kind: adamw, momentum: 0.5}", "optimizer={kind: sgd, momentum: 0.5}"],
        ),
    ],
)
def test_a_value_that_changes_nothing_beside_others_is_left_out(methods, vary, expected):
    cells = grid(methods=methods, seeds=1, vary=vary)
    told = [", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in cell.settings) for cell in cells]
    assert told == expected
    assert len({cell.folder for cell in cells}) == len(cells)


def test_cells_that_would_share_a_folder_are_refused():
    with pytest.raises(ValueError, match=r"cache_dir=a/b and data\.cache_dir=a_b would write into the same folder"):
        grid(methods=["vanilla"], seeds=1, vary=["data.cache_dir=a/b,a_b"])
