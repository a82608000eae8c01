r"""How the libraries that read NIR interpret it, where they depart from its equations.

In all of them a step of a neuron is $v \leftarrow \lambda v + \gamma x$; they differ in $\lambda$, $\gamma$ and the
threshold, and in whether a neuron also fires at the threshold. Tests compare all of this with the libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shortback.choices import NIRImporter
from shortback.errors import UserError

DT = 1e-4
"""Seconds per step that the importers of snnTorch and SpikingJelly assume."""


@dataclass(frozen=True)
class Reader:
    """A library that reads NIR.

    Attributes:
        name: name and version of the library that was read and tested.
        call: the call that reads a file.
        dt: default seconds per step.
        dt_is_fixed: whether the library misreads files with another `dt`.
        has_batches: whether the network that it makes from a file takes a batch of images.
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
    """Seconds per step to write in a file for an importer."""
    return READERS[importer].dt if importer in READERS else DT


@dataclass(frozen=True)
class NeuronStep:
    r"""The parameters of a step of a neuron that resets to 0.

    Attributes:
        leak, gain: $\lambda$ and $\gamma$.
        threshold: shared by all neurons of the node.
        at_threshold: whether the neuron fires at the threshold as well as above.
    """

    leak: float
    gain: float
    threshold: float
    at_threshold: bool = False


def neuron_step(node: Any, *, reader: NIRImporter, dt: float) -> NeuronStep:
    """How a reader interprets an `LIF` or an `IF`; `"any"` follows NIR's equations.

    Args:
        node: a node whose neurons are all equal, have no leak potential, and reset to 0.
        dt: seconds per step.

    Raises:
        ValueError: the reader refuses the neuron, or turns it into a different one.
    """
    import nir

    threshold, r = _one(node.v_threshold), _one(node.r)
    leaky = isinstance(node, nir.LIF)
    rate = dt / _one(node.tau) if leaky else 0.0
    if reader == "norse":  # it takes r as 1, and its IF adds up inputs regardless of dt
        return NeuronStep(1 - rate, rate if leaky else 1.0, threshold)
    if reader == "spikingjelly":
        gain = r * rate if leaky else r * dt
        if not (np.isclose(gain, 1) or (leaky and np.isclose(r, 1))) or (leaky and not 0 < rate < 1):
            raise UserError(f"SpikingJelly reads no {type(node).__name__} with r={r:g} and dt/tau={rate:g}")
        return NeuronStep(1 - rate, gain, threshold, at_threshold=True)
    if reader == "snntorch":
        if not leaky:
            raise UserError("snnTorch reads an IF as a leaky neuron with a decay of 0.9")
        return NeuronStep(1 - rate, 1.0, threshold / (r * rate))
    return NeuronStep(1 - rate, r * rate if leaky else r * dt, threshold)


def check_order(edges: Sequence[tuple[str, str]], *, start: str) -> None:
    """Check that Norse runs every node after the nodes whose outputs it takes.

    Norse runs nodes depth first: it follows the first successor of each node to the end before it turns to the others.
    Where two paths of layers meet, it therefore adds before it has run the second path, and takes that path's output of
    the previous step.

    Raises:
        ValueError: Norse would run a node too early; the message names that node and the input it would miss.
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
                "would add its output of the previous step: Norse cannot run networks in which a skip has layers of "
                "its own, such as a convolution; importer='spikingjelly' and 'snntorch' read them"
            )
        seen.add(name)
        waiting += reversed(follow.get(name, ()))


def _one(values: np.ndarray) -> float:
    return float(np.asarray(values).flat[0])
