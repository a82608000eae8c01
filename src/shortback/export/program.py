"""`torch.export`: the network as a program that runs without this package, and from which runtimes are made."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from shortback.errors import UserError
from shortback.export.accepted import check_network
from shortback.export.folding import fold_norms
from shortback.export.stream import Stream
from shortback.neurons import SpikingNeuron
from shortback.spiking import SpikingNetwork


def to_program(model: SpikingNetwork, sample: Tensor, *, streaming: bool = False, fold: bool = True) -> ExportedProgram:
    """A program of a network, with a batch of any size and a fixed number of steps.

    It is run by `program.module()(x)`, saved by `torch.export.save` and loaded by `torch.export.load`, without this
    package. `shortback.export.write` checks it too.

    Args:
        sample: `[N, C, H, W]` or `[T, N, C, H, W]`, as the program is to take it; with `streaming` a frame `[N, C, H,
            W]`.
        streaming: whether it is `y, state = program(frame, state)`, one frame at a time (`shortback.stream`). The state
            is a dict, that of `stream(model).initial_state(frame)` before the first frame.
        fold: whether batch norms become part of the convolutions before them.

    Raises:
        ValueError: a sample of the wrong shape, or a network that `torch.export` cannot follow, with what it says.
    """
    check_sample(model, sample, streaming=streaming)
    network = deployable(model, fold=fold)
    if not streaming:
        return traced(network, sample)
    one_step = Stream(network)
    return traced(one_step, sample, state=one_step.initial_state(pair(sample)))


def deployable(model: SpikingNetwork, *, fold: bool = True) -> SpikingNetwork:
    """A copy in `eval()` on plain PyTorch operators, batch norms folded."""
    network = fold_norms(model)[0] if fold else copy.deepcopy(model).eval()
    for module in network.modules():
        if isinstance(module, SpikingNeuron):
            module.backend = "reference"
    return network.requires_grad_(False)


def traced(network: nn.Module, sample: Tensor, *, state: dict[str, Tensor] | None = None) -> ExportedProgram:
    """A network by `torch.export`, the batch of its inputs free."""
    batch = Dim("batch", min=1, max=65536)
    inputs: tuple = (pair(sample),)
    shapes: tuple = ({sample.ndim - 4: batch},)
    if state is not None:
        inputs += (state,)
        shapes += ({key: {0: batch} if value.ndim else {} for key, value in state.items()},)
    try:
        with torch.no_grad():
            return torch.export.export(network, inputs, dynamic_shapes=shapes)
    except Exception as error:  # of the kinds that torch.export raises, and of the network's own code
        raise UserError(f"torch.export cannot follow {type(network).__name__}: {first_line(error)}") from error


def pair(sample: Tensor) -> Tensor:
    """The first two images of a sample, or the one twice: a batch of one would be taken for a constant."""
    return torch.cat([sample, sample], dim=sample.ndim - 4).narrow(sample.ndim - 4, 0, 2).contiguous()


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_finite(sample: Tensor) -> None:
    """See that all of a sample, `[N, C, H, W]` or `[T, N, C, H, W]`, is finite: neurons would hide what is not.

    Raises:
        ValueError: naming the images that hold NaN or infinity.
    """
    if sample.ndim < 4:
        return
    wrong = (~sample.isfinite()).flatten(-3).any(-1).view(-1, sample.shape[-4]).any(0).nonzero().flatten().tolist()
    if wrong:
        which = ", ".join(map(str, wrong[:5])) + (" ..." if len(wrong) > 5 else "")
        raise UserError(
            f"sample: NaN or infinity in {len(wrong)} of its {sample.shape[-4]} images, at index {which}: a check "
            "with them says nothing; leave them out"
        )


def check_sample(model: SpikingNetwork, sample: Tensor, *, streaming: bool = False) -> None:
    """See that a network can be exported with a sample.

    Raises:
        ValueError: no `SpikingNetwork`, or a sample that it does not take, or that holds NaN or infinity.
    """
    check_network(model, "an export")
    check_finite(sample)
    if streaming and sample.ndim != 4:
        raise UserError(f"sample of shape {list(sample.shape)}: a streaming program takes a frame, [N, C, H, W]")
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(sample[:, :1] if sample.ndim == 5 else sample[:1])
    except UserError:
        raise
    except RuntimeError as error:
        raise UserError(
            f"sample of shape {list(sample.shape)} does not go through the network: {first_line(error)}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
