r"""Fold batch norms into the convolutions before them, in float64.

With the statistics $\mu$, $\sigma^2$ and the weights $\gamma$, $\beta$ of a norm in `eval()`, and $a = \gamma /
\sqrt{\sigma^2 + \epsilon}$: $\mathrm{BN}(W x + b) = (a W) x + (b - \mu) a + \beta$.
"""

from __future__ import annotations

import contextlib
from operator import attrgetter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm

from shortback.copies import deep_copy
from shortback.export.arguments import input_of
from shortback.spiking import SpikingNetwork
from shortback.spiking.containers import replace_modules
from shortback.spiking.static_input import trace
from shortback.torch_private import is_hooked

_FOLDED = {"weight", "bias", "running_mean", "running_var"}


def fold_norms(model: SpikingNetwork) -> tuple[SpikingNetwork, list[str]]:
    """Copy a network in `eval()`, with each batch norm folded into the convolution before it where that is possible.

    Weights that PyTorch computes in every call, because they are pruned or have a weight or spectral norm (of
    `torch.nn.utils`; behind a parametrized layer the norm stays), become parameters of the copy first. A norm also
    stays if its input is not the output of a convolution, the convolution or its weight has other users, either has
    hooks or is called more than once, something else computes a weight of either, or the network cannot be traced.

    Returns:
        The copy, and the names within `model.network` of the folded norms.
    """
    model = copied(model)
    for module in model.modules():
        _bake(module)
    pairs, folded_away = _pairs(model.network), dict[nn.Module, nn.Module]()
    for conv_name, norm_name in pairs:
        conv, norm = model.network.get_submodule(conv_name), model.network.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d | nn.Linear)
        assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d)
        weight, bias = folded(conv, norm)
        conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
        folded_away[norm] = nn.Identity()
    replace_modules(model.network, folded_away)
    return model, [norm_name for _, norm_name in pairs]


def copied(model: SpikingNetwork) -> SpikingNetwork:
    """A deep copy of a network, in `eval()`."""
    network = deep_copy(model)
    assert isinstance(network, SpikingNetwork)
    return network.eval()


def _bake(module: nn.Module) -> None:
    """Make parameters of the weights of a layer that pruning, weight norm or spectral norm compute in every call."""
    for remove in (prune.remove, remove_weight_norm, remove_spectral_norm):  # a weight norm may be of a pruned weight
        for name in _computed(module):
            if remove is prune.remove and prune.is_pruned(module):
                _own_original(module, name)
            with contextlib.suppress(ValueError):  # another of them computes it
                remove(module, name)


def _own_original(module: nn.Module, name: str) -> None:
    """Give a pruned layer its own copy of the unmasked weight, as the mask is then applied in place."""
    original = module._parameters.get(f"{name}_orig")
    if original is not None:
        module._parameters[f"{name}_orig"] = nn.Parameter(original.detach().clone(), requires_grad=False)


def _computed(module: nn.Module) -> list[str]:
    """Names of the tensors of a module that are neither parameters nor buffers, as where a hook computes a weight."""
    return [name for name, value in vars(module).items() if isinstance(value, Tensor)]


def folded(conv: nn.Conv2d | nn.Linear, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of the one layer that equals a layer followed by a norm."""
    scale, shift = affine(norm)
    weight = conv.weight.detach().double() * scale.view(-1, *[1] * (conv.weight.ndim - 1))
    bias = shift if conv.bias is None else conv.bias.detach().double() * scale + shift
    return weight, bias


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The factor and the offset of each channel that a batch norm applies in `eval()`, in float64."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() * scale
    if norm.weight is not None:
        weight = norm.weight.detach().double()
        scale, shift = weight * scale, weight * shift
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


def _pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Pairs of the name of a convolution and the name of the norm to fold into it."""
    try:
        shell, graph = trace(network)
    except Exception:  # the network's own code may raise anything when it is given a symbolic value
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    modules = [shell.get_submodule(node.target) for node in calls]
    read = [attrgetter(str(node.target))(shell) for node in graph.nodes if node.op == "get_attr"]
    pairs = []
    for node, norm in zip(calls, modules, strict=True):
        source = input_of(norm, node.args, node.kwargs)
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
            continue
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        conv = shell.get_submodule(str(source.target))
        if type(conv) is not nn.Conv2d or len(source.users) != 1:
            continue
        if _FOLDED & {*_computed(conv), *_computed(norm)} or is_hooked(conv) or is_hooked(norm):
            continue
        if any(tensor is conv.weight or tensor is conv.bias for tensor in read):
            continue
        if modules.count(conv) == modules.count(norm) == 1:
            pairs.append((str(source.target), node.target))
    return pairs
