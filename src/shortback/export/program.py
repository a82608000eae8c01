"""Export with `torch.export`, to a program that runs without this package and that other exporters start from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from shortback.errors import UserError
from shortback.export.accepted import check_network
from shortback.export.folding import copied, fold_norms
from shortback.export.stream import Stream
from shortback.neurons import SpikingNeuron
from shortback.spiking import SpikingNetwork


def to_program(model: SpikingNetwork, sample: Tensor, *, streaming: bool = False, fold: bool = True) -> ExportedProgram:
    """Export a network as a `torch.export` program, with a free batch size and a fixed number of steps.

    Run it with `program.module()(x)`, save it with `torch.export.save` and load it with `torch.export.load`, which does
    not need this package. `shortback.export.write` also checks it.

    Args:
        sample: an input of the program, `[N, C, H, W]` or `[T, N, C, H, W]`; with `streaming` a frame `[N, C, H, W]`.
        streaming: whether the program takes one frame at a time, `y, state = program.module()(frame, state)`, as
            `shortback.stream` does. The state is a dict; `stream(model).initial_state(frame)` makes the first one.
        fold: whether to fold batch norms into the convolutions before them.

    Raises:
        ValueError: the sample has the wrong shape, or `torch.export` cannot follow the network, with its message.
    """
    check_sample(model, sample, streaming=streaming)
    network = deployable(model, fold=fold)
    if not streaming:
        return traced(network, sample)
    one_step = Stream(network)
    return traced(one_step, sample, state=one_step.initial_state(pair(sample)))


def deployable(model: SpikingNetwork, *, fold: bool = True) -> SpikingNetwork:
    """Copy a network in `eval()`, on plain PyTorch operators, with batch norms folded if `fold` is set."""
    network = fold_norms(model)[0] if fold else copied(model)
    for module in network.modules():
        if isinstance(module, SpikingNeuron):
            module.backend = "reference"
    return network.requires_grad_(False)


def traced(network: nn.Module, sample: Tensor, *, state: dict[str, Tensor] | None = None) -> ExportedProgram:
    """Export a network with `torch.export`, leaving the batch size of its inputs free.

    Args:
        state: for a network that streams, the second input.
    """
    batch = Dim("batch", min=1, max=65536)
    inputs: tuple = (pair(sample),)
    shapes: tuple = ({sample.ndim - 4: batch},)
    if state is not None:
        inputs += (state,)
        shapes += ({key: {0: batch} if value.ndim else {} for key, value in state.items()},)
    try:
        with torch.no_grad():
            return torch.export.export(network, inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises many kinds, and runs the network's own code
        raise UserError(f"torch.export cannot follow {type(network).__name__}: {first_line(error)}") from error


def pair(sample: Tensor) -> Tensor:
    """The first two images of a sample, or its only one twice: `torch.export` takes a batch of one for a constant."""
    return torch.cat([sample, sample], dim=sample.ndim - 4).narrow(sample.ndim - 4, 0, 2).contiguous()


def first_line(error: Exception) -> str:
    """The first line of an error message; the name of its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_finite(sample: Tensor) -> None:
    """Check that a sample `[N, C, H, W]` or `[T, N, C, H, W]` is finite, as neurons would hide values that are not.

    Raises:
        ValueError: it is no tensor or empty, or an image holds NaN or infinity; the message gives the indices of such
            images.
    """
    if not isinstance(sample, Tensor):
        raise UserError(f"sample: must be a tensor of images, [N, C, H, W], not a {type(sample).__name__}")
    if not sample.numel():
        raise UserError(f"sample of shape {list(sample.shape)}: holds no image")
    if sample.ndim < 4:
        return
    wrong = (~sample.isfinite()).flatten(-3).any(-1).view(-1, sample.shape[-4]).any(0).nonzero().flatten().tolist()
    if wrong:
        which = ", ".join(map(str, wrong[:5])) + (" ..." if len(wrong) > 5 else "")
        raise UserError(
            f"sample: NaN or infinity in {len(wrong)} of its {sample.shape[-4]} images, at index {which}: leave them "
            "out, as a check with them would be meaningless"
        )


def check_sample(model: SpikingNetwork, sample: Tensor, *, streaming: bool = False) -> None:
    """Check that a network can be exported with a sample.

    Raises:
        ValueError: the network is no `SpikingNetwork` or does not take the sample, or the sample holds NaN or infinity.
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
