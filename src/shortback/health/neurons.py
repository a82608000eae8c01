"""Which neurons of a network are to be watched, and how time runs through them."""

from __future__ import annotations

from torch import Tensor, nn

from shortback.choices import Layout
from shortback.inspection.calls import Calls, is_known_neuron
from shortback.inspection.classes import StepsOrClassesError
from shortback.inspection.detect import find_layouts
from shortback.inspection.libraries import is_integrator, whole_modules
from shortback.inspection.trunk import Branched
from shortback.neurons import TimeModule

_WITHOUT_NEURONS = ("torch.", "torchvision.", "timm.", "shortback.")  # but for those of ours, which are known


def neurons_of(trunk: nn.Module, model: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """The neurons by name: known ones, and where there are modules of anyone else, what is seen to fire.

    Not those that only integrate, as a readout: that they put out anything but zeros and ones is no fault of theirs.

    Args:
        trunk: what is measured; names are taken in it.
        model: what takes `x`: the trunk, or the `SpikingNetwork` around it.
        x: a batch.
    """
    known = {name: module for name, module in whole_modules(trunk) if is_known_neuron(module)}
    known = {name: module for name, module in known.items() if not is_integrator(module)}
    if all(type(module).__module__.startswith(_WITHOUT_NEURONS) for module in trunk.modules()):
        return known
    try:
        firing = Calls.of(model, x).firing
    except Exception:  # of the network's own code, which is about to run in training too, and may say it again there
        return known
    return {name: module for name, module in trunk.named_modules() if module in firing and not is_integrator(module)}


def layouts_of(
    net: nn.Module, trunk: nn.Module, neurons: dict[str, nn.Module], x: Tensor
) -> tuple[dict[str, Layout], Layout]:
    """How time runs through neurons that are not ours, as far as it is to be found out, and through the output.

    Raises:
        ValueError: a network without branches returns `[N, T, K]` or `[N, K, T]`, and which is not to be told.
    """
    others = {name: module for name, module in neurons.items() if not isinstance(module, TimeModule)}
    if not others:
        return {}, "folded"
    try:
        found = find_layouts(trunk, x, others, num_steps=net.num_steps if isinstance(net, Branched) else None)
    except StepsOrClassesError:
        if isinstance(net, Branched):  # which knows
            return {}, "folded"
        raise
    except ValueError:
        return {}, "folded"
    modules: dict[str, Layout] = dict(found.modules)
    if found.output == "batch_first":  # and so is a neuron whose samples lie first
        modules.update({name: "batch_first" for name, layout in modules.items() if layout == "folded"})
    return modules, found.output
