"""Convert any ANN to a spiking network, by replacing every activation by a neuron."""

from __future__ import annotations

import logging
from collections.abc import Collection

import torch
from torch import nn

from shortback.choices import nearest
from shortback.copies import deep_copy
from shortback.errors import UserError
from shortback.neurons import NeuronFactory, make_neuron
from shortback.spiking.activations import (
    activation_lookalikes,
    is_activation,
    is_gate,
    refuse_traced_functions,
)
from shortback.spiking.containers import replace_in_attributes
from shortback.spiking.functions import functions_to_modules
from shortback.spiking.network import SpikingNetwork
from shortback.torch_private import is_compiled

log = logging.getLogger("shortback")


def spikify(
    ann: nn.Module, *, num_steps: int, neuron: NeuronFactory | None = None, keep: Collection[str] = ()
) -> SpikingNetwork:
    """Make a network spiking by replacing every ReLU-like activation with a neuron.

    A module is replaced if its class, or a base class of it, is called ReLU, ReLU6, LeakyReLU, PReLU, RReLU, ELU,
    CELU, SELU, GELU, GELUTanh, QuickGELU, SiLU, Swish, Mish, Hardswish, HSwish, HardMish or Softplus, whatever its
    package, case, underscores or a final `Me`, `Jit` or `Activation`. This covers the activations of `torch.nn` and
    timm, also in-place ones and those within a layer such as timm's `BatchNormAct2d`. An activation that is used in
    several places becomes one neuron used in these places, also in lists and dicts beside the modules. All other
    modules stay: gates (Sigmoid, Hardsigmoid, Softmax), Tanh, Hardtanh, dropout.

    Activations called as functions (`F.relu`, `x.relu()`, ...) are searched for in the source of `forward` and of the
    functions that it calls. In methods of modules, each such call becomes one of a neuron, `self.relu(x)`: the module
    gets a class derived from its own, with the method compiled from its changed source. Those elsewhere, such as in a
    helper or a decorated method, are refused, as are those that only a symbolic trace meets, if one can be made.
    Activations in a plain list, tuple or dict that are functions or unregistered modules are left with a warning,
    unless the trace meets and refuses them: a teacher that is stored there is not meant to spike.

    Args:
        ann: the network, `[N, C, H, W] -> [N, K]`. It is not changed: the result is built on a deep copy.
        num_steps: number of time steps `T`.
        neuron: called with `num_steps` for every activation; `LIF` if not given.
        keep: names of modules that stay as they are, with all that is in them: those that do not run on images, such as
            the `cpb_mlp` of a Swin V2, which computes its position biases.

    Raises:
        ValueError: `ann` is no module, is compiled, takes videos, sequences or words, calls activations as functions
            outside of its methods or drops what an in-place one returns (the message says where), or has no
            activations; `neuron` is not a factory; or there is no module of a name in `keep`.
    """
    if not isinstance(ann, nn.Module):
        raise UserError(
            f"spikify() got {type(ann).__name__}: give it a network, a torch.nn.Module, such as "
            "torchvision.models.resnet18()"
        )
    if isinstance(ann, torch.jit.ScriptModule):
        raise UserError("spikify() takes the network before torch.jit.script or trace: pass it as it was")
    if is_compiled(ann):
        raise UserError("spikify() takes the network before torch.compile: pass it as it was, then compile the result")
    _refuse_other_inputs(ann)
    network = deep_copy(ann)
    kept = _modules_within(network, keep)
    functions_to_modules(network, keep=kept)
    device = next((p.device for p in network.parameters()), None)
    neurons: dict[nn.Module, nn.Module] = {}
    for parent in list(network.modules()):
        if is_gate(parent) or parent in kept:
            continue
        for name, child in list(parent._modules.items()):
            if child is not None and is_activation(child) and child not in kept:
                if child not in neurons:
                    neurons[child] = make_neuron(neuron, num_steps).to(device).train(child.training)
                parent.register_module(name, neurons[child])
        if isinstance(parent, nn.TransformerEncoderLayer):
            parent.activation_relu_or_gelu = 0  # or its fused inference path would still apply a ReLU
    outside = "".join(f"\n  {line}" for line in replace_in_attributes(network, neurons))
    if not neurons:
        raise UserError(
            f"{type(ann).__name__} holds no activation to replace: spikify() needs modules such as nn.ReLU(), "
            f"registered in an attribute of their own, in an nn.ModuleList or in an nn.ModuleDict{outside}"
        )
    if outside:
        log.warning(
            "spikify() left unchanged the activations that %s keeps outside of its modules:%s\nIf forward uses one, "
            "make it a module that is registered: nn.ReLU() in an attribute of its own, in an nn.ModuleList or in an "
            "nn.ModuleDict",
            *(type(ann).__name__, outside),
        )
    put_in = {*neurons.values(), *kept}
    if like := activation_lookalikes(network, neurons=put_in):
        log.warning(
            "spikify() left %s as they are, though named like activations: if they are activations, derive their "
            "classes from nn.ReLU, or replace them by nn.ReLU()",
            ", ".join(like),
        )
    in_place = {made for activation, made in neurons.items() if getattr(activation, "inplace", False)}
    refuse_traced_functions(network, neurons=put_in, in_place=in_place)
    return SpikingNetwork(network, num_steps=num_steps)


def _modules_within(network: nn.Module, names: Collection[str]) -> set[nn.Module]:
    if isinstance(names, str):
        raise UserError(f"keep={names!r}: give a list of names, such as [{names!r}]")
    modules = dict(network.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise UserError(f"keep: no such module, {name!r}; the nearest are {nearest(name, [*modules])}")
    return {module for name in names for module in modules[name].modules()}


def _refuse_other_inputs(ann: nn.Module) -> None:
    """Refuse networks that do not take images, as an extra axis of the input is taken for time steps."""
    modules = [(name, module) for name, module in ann.named_modules() if isinstance(module, _NO_IMAGES)]
    has_images = any(isinstance(module, nn.Conv2d) for module in ann.modules())
    for name, module in modules:
        if isinstance(module, nn.Conv3d) or not has_images:
            raise UserError(
                f"spikify() takes networks of images, [N, C, H, W], and {name or 'this'} is a {type(module).__name__}: "
                "insert neurons of shortback.neurons by hand, and attach() branches to the result"
            )


_NO_IMAGES = (nn.Conv3d, nn.Conv1d, nn.RNNBase, nn.Embedding)
