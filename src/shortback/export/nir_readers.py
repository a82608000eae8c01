r"""What the libraries that read NIR make of it, where they depart from its equations.

A step of a neuron is $v \leftarrow \lambda v + \gamma x$ in all of them, and they differ in what $\lambda$, $\gamma$
and the threshold are, and in whether it fires at the threshold too. Tests compare all of this with the libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shortback.choices import NIRImporter
from shortback.errors import UserError

DT = 1e-4
"""Seconds a step: what the importers of snnTorch and SpikingJelly take for granted."""


@dataclass(frozen=True)
class Reader:
    """A library that reads NIR.

    Attributes:
        name: with the version that was read and tested.
        call: what reads a file.
        dt: seconds a step, if its user says nothing.
        dt_is_fixed: whether files of another `dt` are wrong in it.
        has_batches: whether a batch of images goes through what it makes of a file.
    """

    name: str
    call: str
    dt: float = DT
    dt_is_fixed: bool = False
    has_batches: bool = True


READERS: Mapping[str, Reader] = {
    "spikingjelly": Reader("SpikingJelly 2.0.0", "import_from_nir(FILE)", dt_is_fixed=True),
    "snntorch": Reader("snnTorch 1.0.0", "import_from_nir(nir.read(FILE))", dt_is_fixed=True, has_batches=False),
    "norse": Reader("Norse 1.1.0", "norse.torch.from_nir(nir.read(FILE))", dt=1e-3, has_batches=False),
}


def usual_dt(importer: NIRImporter) -> float:
    """Seconds a step of a file for an importer."""
    return READERS[importer].dt if importer in READERS else DT


@dataclass(frozen=True)
class NeuronStep:
    r"""A step of a neuron that resets to 0.

    Attributes:
        leak, gain: $\lambda$ and $\gamma$.
        threshold: one for all neurons of the node.
        at_threshold: whether it fires at the threshold as well as above.
    """

    leak: float
    gain: float
    threshold: float
    at_threshold: bool = False


def neuron_step(node: Any, *, reader: NIRImporter, dt: float) -> NeuronStep:
    """What a reader makes of an `LIF` or an `IF`; `"any"` keeps to NIR's equations.

    Args:
        node: of equal neurons, without a leak potential, which reset to 0.
        dt: seconds a step.

    Raises:
        ValueError: a neuron that the reader refuses, or of which it makes another one.
    """
    import nir

    threshold, r = _one(node.v_threshold), _one(node.r)
    leaky = isinstance(node, nir.LIF)
    rate = dt / _one(node.tau) if leaky else 0.0
    if reader == "norse":  # it takes r for 1, and an IF adds up its inputs whatever a step lasts
        return NeuronStep(1 - rate, rate if leaky else 1.0, threshold)
    if reader == "spikingjelly":
        gain = r * rate if leaky else r * dt
        if not (np.isclose(gain, 1) or (leaky and np.isclose(r, 1))) or (leaky and not 0 < rate < 1):
            raise UserError(f"SpikingJelly reads no {type(node).__name__} of r={r:g} and dt/tau={rate:g}")
        return NeuronStep(1 - rate, gain, threshold, at_threshold=True)
    if reader == "snntorch":
        if not leaky:
            raise UserError("snnTorch makes a neuron of decay 0.9 of an IF")
        return NeuronStep(1 - rate, 1.0, threshold / (r * rate))
    return NeuronStep(1 - rate, r * rate if leaky else r * dt, threshold)


def check_order(edges: Sequence[tuple[str, str]], *, start: str) -> None:
    """See that Norse runs every node after those whose outputs it takes.

    It goes from a node to the first of those that follow and so on to the end, and only then to the others: where two
    paths of layers meet again, it adds before the second one has been run, and takes that one's output of the step
    before.

    Raises:
        ValueError: naming a node that it would run too early, and what it would miss.
    """
    follow: dict[str, list[str]] = {}
    sources: dict[str, list[str]] = {}
    for source, target in edges:
        follow.setdefault(source, []).append(target)
        sources.setdefault(target, []).append(source)
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        missing = [source for source in sources.get(name, ()) if source not in seen]
        if missing:
            raise UserError(
                f"to_nir(): {name}: importer='norse': Norse runs this before {missing[0]}, whose output it adds, and "
                "would add that of the step before: networks in which a skip has layers of its own, such as a "
                "convolution, are not for Norse; importer='spikingjelly' and 'snntorch' read them"
            )
        seen.add(name)
        waiting += reversed(follow.get(name, ()))


def _one(values: np.ndarray) -> float:
    return float(np.asarray(values).flat[0])
