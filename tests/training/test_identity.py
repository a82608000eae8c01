import pytest
import torch
from torch import nn

import shortback as sb
from shortback.schedules import Linear, as_schedule
from shortback.training import CheckpointError, WarmupCosine, fit
from shortback.training.identity import check_same, identity_of
from shortback.training.plan import Plan
from tests.training.conftest import _images


def loader(batch_size=16, count=64):
    images = _images(count, seed=0)
    data = torch.utils.data.TensorDataset(images.images.float() / 100, images.labels)
    return torch.utils.data.DataLoader(data, batch_size=batch_size)


def net(at="stages", width=0.25, model="resnet20"):
    torch.manual_seed(0)
    model = sb.create_model(model, num_classes=4, num_steps=2, in_channels=1, width=width)
    return sb.attach(model, at=at, sample=torch.zeros(2, 1, 12, 12))


@pytest.mark.parametrize(
    ("other", "settings", "batch_size", "message"),
    [
        (lambda: net(at="blocks"), {}, 16, r"branches: \['layer1'.*weights that the checkpoint lacks: heads"),
        (lambda: net(width=0.5), {}, 16, r"shapes: .*\[4, .* in the checkpoint, \[8, .* now"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 4)), {}, 16, "weights that the network lacks: .*model"),
        (net, {"epochs": 3}, 16, "epochs: 2 in the checkpoint, 3 now"),
        (net, {}, 32, "batches an epoch: 4 in the checkpoint, 2 now\n  batch size: 16 in the checkpoint, 32 now"),
        (net, {"optimizer": torch.optim.AdamW}, 16, "optimizer: 'SGD' in the checkpoint, 'AdamW' now"),
        (net, {"lr": 0.5}, 16, r"learning rate: .*peak=0\.1, .* in the checkpoint, .*peak=0\.5, .* now"),
        (net, {"schedule": Linear(start=0.5)}, 16, r"schedule: 'Linear\(start=0\.25, .* now"),
        (net, {"schedule": 1.0}, 16, r"schedule: 'Linear.*, 'Constant\(value=1\.0\)' now"),
        (net, {"seed": 5}, 16, "seed: 0 in the checkpoint, 5 now"),
        (net, {"accumulate": 2, "clip_norm": 0.1}, 16, "accumulate: 1 .*, 2 now\n  clip_norm: None .*, 0.1 now"),
        (net, {"ema": 0.9}, 16, "ema: None in the checkpoint, 0.9 now"),
        (net, {"loss": sb.CrossEntropy(label_smoothing=0.5)}, 16, r"loss: .*=0\.0\)' in .*=0\.5\)' now"),
        (net, {"loss": nn.CrossEntropyLoss()}, 16, "loss: .*CrossEntropy.* 'CrossEntropyLoss' now"),
        (
            net,
            {"loss": sb.ShortcutLoss(combine="additive", branch_weights="mean"), "schedule": Linear(start=0.25)},
            16,
            "combine: 'logits' in the checkpoint, 'additive' now\n  branch weights: 'sum' in .*, 'mean' now",
        ),
    ],
)
def test_what_differs_is_said_and_nothing_is_loaded(tmp_path, other, settings, batch_size, message):
    execution = sb.training.choose_execution(precision="fp32", compile="off")
    fit(net(), loader(), epochs=2, folder=tmp_path, execution=execution, loggers=())
    changed = other()
    before = {name: value.clone() for name, value in changed.state_dict().items()}
    if "optimizer" in settings:
        settings = {"optimizer": settings["optimizer"](changed.parameters(), lr=0.01)}
    settings = {"epochs": 2, **settings}
    with pytest.raises(CheckpointError, match=f"(?s)is a different one:.*{message}"):
        fit(changed, loader(batch_size), folder=tmp_path, resume=True, execution=execution, loggers=(), **settings)
    assert all(torch.equal(value, before[name]) for name, value in changed.state_dict().items())


def alike(**changed):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    settings = {
        "plan": Plan(epochs=2),
        "loss": sb.ShortcutLoss(),
        "schedule": Linear(start=0.25),
        "learning_rate": WarmupCosine(peak=0.1, total_steps=8),
    }
    return identity_of(changed.pop("net"), loader(), optimizer, **{**settings, **changed})


def test_what_is_said_of_functions_and_of_networks_without_branches():
    branched, plain = net(), nn.Linear(2, 2)
    of_functions = alike(net=branched, schedule=as_schedule(lambda p: p), learning_rate=lambda step: 0.1)
    assert not {"schedule", "learning rate"} & of_functions.keys()
    assert alike(net=plain) == alike(net=plain, schedule=Linear(), loss=sb.ShortcutLoss(combine="convex"))
    assert alike(net=branched, schedule=Linear(start=1)) == alike(net=branched, schedule=Linear(start=1.0))


def test_a_checkpoint_that_says_less_is_taken(tmp_path):
    now = alike(net=net())
    content = {"net": net().state_dict(), "identity": {"epochs": 2, "branches": ["layer1", "layer2"]}}
    check_same(content, now, net(), folder=tmp_path)
    del content["identity"]
    check_same(content, now, net(), folder=tmp_path)
    content["identity"] = {"epochs": 3}
    with pytest.raises(CheckpointError, match="epochs: 3 in the checkpoint, 2 now"):
        check_same(content, now, net(), folder=tmp_path)
