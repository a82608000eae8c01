"""`fit` on networks, losses, optimizers and loaders of the user's own, at their edges."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import shortback as sb
from shortback.training import choose_execution, fit

FP32 = choose_execution(precision="fp32")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), sb.LIF(1, backend="reference"), nn.Linear(6, 4))


def batches(number=4, size=8):
    generator = torch.Generator().manual_seed(0)
    return [
        (3 * torch.randn(size, 5, generator=generator), torch.randint(4, (size,), generator=generator))
        for _ in range(number)
    ]


class Rows:
    """Keeps the rows, and calls a function after each step."""

    def __init__(self, after=lambda: None):
        self.rows, self.after = [], after

    def start(self, **_):
        pass

    def log(self, row):
        self.rows.append(row)

    def advance(self, step):
        self.after()

    def close(self):
        pass

    def of(self, kind, key):
        return [row[key] for row in self.rows if row["kind"] == kind]


def trained(model, data, folder, **settings):
    rows = settings.pop("rows", None) or Rows()
    fit(model, data, **{"epochs": 1, "folder": folder, "execution": FP32, "loggers": [rows], **settings})
    return rows


def test_what_the_optimizer_leaves_out_does_not_pile_up(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.0)
    settings = {"optimizer": optimizer, "learning_rate": lambda step: 0.0, "log_every": 1, "epochs": 4}
    norms = trained(model, batches(1), tmp_path, **settings).of("step", "gradient_norm")
    assert norms == [norms[0]] * 4
    x, y = batches(1)[0]
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    by_hand = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in model[2].parameters()]))
    assert norms[0] == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_training_a_part_is_that_by_hand(tmp_path, clip_norm):
    model, by_hand, data = net(), net(), batches()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    settings = {"optimizer": optimizer, "learning_rate": lambda step: 0.1, "clip_norm": clip_norm, "epochs": 3}
    trained(model, data, tmp_path, **settings)
    optimizer = torch.optim.SGD(by_hand[2].parameters(), lr=0.1)
    for x, y in data * 3:
        optimizer.zero_grad()
        F.cross_entropy(by_hand(x), y).backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(by_hand[2].parameters(), clip_norm)
        optimizer.step()
    torch.testing.assert_close(model[2].weight, by_hand[2].weight)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("loss", [F.cross_entropy, functools.partial(F.cross_entropy, ignore_index=-100)])
def test_ignored_labels_of_a_function_are_those_of_the_module(tmp_path, loss, number):
    data = [(x, torch.where(torch.arange(8) < 3, -100, y)) for x, y in batches()]
    found = []
    for name, each in (("module", nn.CrossEntropyLoss()), ("function", loss)):
        model = net()
        rows = trained(model, data, tmp_path / name, loss=each, accumulate=number, validation=data)
        found.append((model[0].weight, rows.of("epoch", "loss"), rows.of("epoch", "val_accuracy")))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_a_head_that_uses_a_layer_of_the_network_leaves_it_in_training(tmp_path):
    model = net()
    branched = sb.attach(model, at=["1"], sample=batches()[0][0], head=lambda features, classes: model[2])
    seen = []
    rows = Rows(lambda: seen.append((model[2].weight.requires_grad, model[2].weight.sum().item())))
    schedule = sb.schedules.Linear(start=0.25, over=0.34)
    trained(branched, batches(), tmp_path, epochs=3, schedule=schedule, rows=rows, learning_rate=lambda step: 0.1)
    assert all(is_trained for is_trained, _ in seen)
    assert len({total for _, total in seen}) == len(seen)


def test_the_gradient_is_watched_on_samples_that_count(tmp_path):
    x = batches(1, 32)[0][0]
    y = torch.cat([torch.full((16,), -100), torch.arange(16) % 4])
    rows = trained(net(), [(x, y)], tmp_path, loss=nn.CrossEntropyLoss(), watch_every=1)
    by_diagnosis = sb.diagnose(net(), x[16:], y[16:], suggest=False)
    assert rows.of("health", "verdict") == [by_diagnosis.judgement.verdict]
    relative = {layer.name: layer.relative for layer in by_diagnosis.layers}
    assert rows.of("health", "layers")[0]["relative"] == pytest.approx(relative)


class Remembers(nn.Module):
    """A neuron with a `reset()`, and its membrane in a buffer of the size of the batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("v", torch.zeros(1))

    def reset(self):
        self.v = torch.zeros(1)

    def forward(self, x):
        u = 0.5 * self.v + x
        smooth = torch.sigmoid(u - 1)
        spikes = smooth + ((u >= 1).float() - smooth).detach()
        self.v = u * (1 - spikes)
        return spikes


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.neuron, self.b = nn.Linear(5, 6), Remembers(), nn.Linear(6, 4)

    def forward(self, x):
        return torch.stack([self.b(self.neuron(self.a(x))) for _ in range(3)])


def test_a_neuron_of_ones_own_with_a_reset_is_resumed_and_averaged(tmp_path):
    trained(Loop(), batches(), tmp_path / "run", epochs=2)
    trained(Loop(), batches(), tmp_path / "run", epochs=2, resume=True)
    last_is_small = [(x[:5], y[:5]) for x, y in batches()]
    rows = trained(Loop(), batches(), tmp_path / "average", ema=0.9, validation=last_is_small)
    assert rows.of("epoch", "val_accuracy")[0] is not None


class Extra(nn.Sequential):
    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state):
        self.seen = state


def test_extra_states_are_no_weights(tmp_path):
    trained(Extra(*net()), batches(), tmp_path)
    again = Extra(*net())
    trained(again, batches(), tmp_path, resume=True)
    assert again.seen == {"version": 2}
    assert sb.load_weights(Extra(*net()), tmp_path / "checkpoints" / "best.safetensors") == []


def test_the_average_of_a_network_that_keeps_computed_tensors(tmp_path):
    model = net()
    nn.utils.parametrizations.weight_norm(model[0])
    model.features = [model(batches()[0][0])]
    trained(model, batches(), tmp_path, ema=0.9)


@pytest.mark.parametrize("weighted", [False, True])
def test_float64_stays_float64(tmp_path, weighted):
    data = [(x.double(), y) for x, y in batches()]
    loss = nn.CrossEntropyLoss(weight=torch.ones(4).double()) if weighted else nn.CrossEntropyLoss()
    model = net().double()
    rows = trained(model, data, tmp_path, loss=loss, validation=data, execution=None)  # bf16 by default, for others
    whole = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    expected = F.cross_entropy(model(whole[0]), whole[1]).item()
    assert rows.of("epoch", "val_loss")[0] == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_trained_with_is_refused(tmp_path):
    empty = [*batches(), (torch.randn(0, 5), torch.zeros(0).long())]
    with pytest.raises(ValueError, match="a batch without samples"):
        trained(net(), empty, tmp_path / "empty")
    model = net()
    with pytest.raises(ValueError, match="LBFGS computes the loss several times a step"):
        trained(model, batches(), tmp_path / "lbfgs", optimizer=torch.optim.LBFGS(model.parameters()))


def test_a_loader_that_grows_ends_with_the_length_it_had(tmp_path, caplog):
    class Grows(list):
        def __iter__(self):
            yield from list.__iter__(self)
            self.append(self[0])

    rows = trained(net(), Grows(batches(2)), tmp_path, epochs=3, schedule=0.5, log_every=1)
    assert len(rows.of("step", "loss")) == 6
    assert "Grows gives more batches in an epoch than its len(), 2" in caplog.text


def test_inputs_that_are_not_finite_are_told_in_an_evaluation(caplog):
    x, y = batches(1)[0]
    sb.training.evaluate(net(), [(x, y), (x * float("nan"), y)])
    assert "1 evaluated batches hold inputs that are not finite" in caplog.text
