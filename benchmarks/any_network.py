"""What do branches cost in training on another library's network, relative to the same network without?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import gates
import shortback as sb
from harness import Settings, Side, compare, run
from peers import missing

NUM_STEPS = 4


@dataclass(frozen=True)
class Case:
    """A network, how it makes its input from images `[N, 3, 32, 32]`, and how its output becomes logits."""

    name: str
    make: Callable[[], nn.Module]
    prepare: Callable[[Tensor], Tensor] = lambda images: images
    settings: dict[str, Any] = field(default_factory=dict)


def _sequence(images: Tensor) -> Tensor:
    return images.expand(NUM_STEPS, *images.shape).contiguous()


def sew_resnet18() -> nn.Module:
    try:
        from spikingjelly.activation_based import functional, layer, neuron, surrogate
        from spikingjelly.activation_based.model import sew_resnet
    except ModuleNotFoundError as error:
        raise missing("spikingjelly") from error
    net = sew_resnet.sew_resnet18(
        spiking_neuron=neuron.LIFNode,
        cnf="ADD",
        num_classes=10,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
    )
    net.conv1 = layer.Conv2d(3, 64, 3, padding=1, bias=False)
    functional.set_step_mode(net, "m")
    return net


class SnnTorchNet(nn.Module):
    """Six convolutions, called once per time step."""

    def __init__(self) -> None:
        super().__init__()
        try:
            import snntorch
        except ModuleNotFoundError as error:
            raise missing("snntorch") from error
        layers: list[nn.Module] = []
        for inputs, outputs, pool in ((3, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2), (64, 128, 1), (128, 128, 2)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.MaxPool2d(pool)]
            layers += [snntorch.Leaky(beta=0.9, init_hidden=True)]
        self.step = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.step(x) for _ in range(NUM_STEPS)])


def torchvision_resnet18() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=10)


CASES = (
    Case("SpikingJelly SEW-ResNet-18, T=4", sew_resnet18, _sequence, {"reduce": "mean"}),
    Case("snnTorch, six convolutions, T=4", SnnTorchNet, settings={"reduce": "mean"}),
    Case("torchvision ResNet-18, no time", torchvision_resnet18),
)


def measure(settings: Settings) -> dict[str, Any]:
    """Compare a training step with a branch after every block but the last with one without; both reset states."""
    return {"cases": [_compare(case, settings) for case in filter(settings.asks_for, CASES)]}


def _compare(case: Case, settings: Settings) -> dict[str, Any]:
    size = settings.batch_size or (2 if settings.quick else 16)
    generator = torch.Generator().manual_seed(0)
    images, y = torch.randn(size, 3, 32, 32, generator=generator), (torch.arange(size) % 10).to(settings.device)
    x = case.prepare(images).to(settings.device)
    branches, vanilla = (_network(case, x, settings, branches=branches) for branches in (True, False))
    training = compare(
        [
            Side("branches", lambda: _training_step(branches, x, y)),
            Side("vanilla", lambda: _training_step(vanilla, x, y)),
        ],
        gate=lambda: gates.bit_equal("main logits", _main(branches, x), _main(vanilla, x)),
        title=f"{case.name}, batch {size}",
        **settings.timing(),
    )
    return {"case": case.name, "batch_size": size, "branches": len(branches.places), "training": training}


def _network(case: Case, x: Tensor, settings: Settings, *, branches: bool) -> sb.ShortcutNetwork:
    """The network, with the same weights each time; without branches, `attach` still reads its output."""
    torch.manual_seed(0)
    net = sb.attach(case.make().to(settings.device), sample=x, **case.settings)
    if not branches:
        net.remove_taps()
        net.is_stripped = False
        net.branches_enabled = False
        net.heads.requires_grad_(False)
    return net


def _main(net: sb.ShortcutNetwork, x: Tensor) -> Tensor:
    with torch.no_grad():
        sb.reset_states(net)
        return net.eval()(x).logits


def _training_step(net: sb.ShortcutNetwork, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    net.train()

    def step() -> Tensor:
        sb.reset_states(net)
        loss = sb.shortcut_loss(net(x), y, coefficient=0.5).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "only", "batch_size"))


if __name__ == "__main__":
    main()
