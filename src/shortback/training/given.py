"""Prepare a network for training, and undo the changes afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from shortback.choices import Backend, Memory
from shortback.errors import UserError
from shortback.inspection.pointwise import patch_strided_1x1, unpatch_strided_1x1
from shortback.inspection.untouched import in_training
from shortback.neurons import SpikingNeuron
from shortback.shortcuts import ShortcutNetwork
from shortback.spiking import SpikingNetwork
from shortback.training.execution import Execution
from shortback.training.sync_norm import restore_norms, synchronise_norms


class NetworkInTraining:
    """A network in training; everything but its weights, device and backend is restored afterwards.

    Args:
        net: what `attach` returned, or a network without branches.
        execution: how the network runs.
        fabric: a launched Fabric.

    Raises:
        ValueError: a module inside the network has branches.
    """

    def __init__(self, net: nn.Module, *, execution: Execution, fabric: Fabric) -> None:
        _refuse_branches_inside(net)
        self.net, self._execution, self._fabric = net, execution, fabric
        self._memories: list[tuple[SpikingNetwork | SpikingNeuron, Memory]] = [
            (m, m.memory) for m in net.modules() if isinstance(m, SpikingNetwork | SpikingNeuron)
        ]
        self._backends: list[tuple[SpikingNeuron, Backend]] = [
            (m, m.backend) for m in net.modules() if isinstance(m, SpikingNeuron)
        ]
        self._has_dropped, self._frozen_heads = False, list[nn.Parameter]()
        self._convolutions: list[nn.Conv2d] = []

    def prepare(self) -> Any:
        """Prepare the network for training; returns the module to call, which wraps it."""
        if self._fabric.world_size > 1:
            synchronise_norms(self.net)
        if self._fabric.device.type == "cpu":
            self._convolutions += patch_strided_1x1(self.net)
        return self._fabric.setup_module(self._execution.prepare(in_training(self.net)))

    def drop_branches(self) -> Any:
        """Stop computing the branches; returns the module to call from now on, or None to keep calling the same."""
        if not isinstance(self.net, ShortcutNetwork) or not self.net.branches_enabled:
            return None
        self.net.branches_enabled, self._has_dropped = False, True
        shared = set(self.net.model.parameters())  # a head may use a layer of the network
        self._frozen_heads = [p for p in self.net.heads.parameters() if p.requires_grad and p not in shared]
        for parameter in self._frozen_heads:
            parameter.requires_grad_(False)
        if self._fabric.world_size == 1:
            return None
        # DDP waits for the gradients of all parameters that it was built with.
        return self._fabric.setup_module(self._execution.prepare(self.net))

    def put_back(self) -> None:
        """Undo what training changed, except for the backend and memory setting of neurons, which stay as trained."""
        restore_norms(self.net)
        unpatch_strided_1x1(self._convolutions)
        if self._has_dropped and isinstance(self.net, ShortcutNetwork):
            self.net.branches_enabled = True
            for parameter in self._frozen_heads:
                parameter.requires_grad_()

    @contextmanager
    def put_back_after_an_error(self) -> Iterator[None]:
        """Undo everything if the block raises, including the backend and memory setting of neurons."""
        try:
            yield
        except BaseException:
            self.put_back()
            for module, memory in self._memories:  # networks come first, as they set that of their neurons
                module.memory = memory
            for neuron, backend in self._backends:
                neuron.backend = backend
            raise


def _refuse_branches_inside(net: nn.Module) -> None:
    """Refuse a network with branches inside another module, where they would be trained without their heads."""
    for name, module in net.named_modules():
        if isinstance(module, ShortcutNetwork) and module is not net and not module.is_stripped:
            raise UserError(
                f"{type(net).__name__} contains a network with branches, {name}: train what attach() returned, which "
                "is compiled and distributed by itself; to train the whole, strip() it and attach to the whole"
            )
