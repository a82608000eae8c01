"""Dataclasses for the result of a measurement of gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

from shortback.health.activity import NeuronActivity

MAIN = ".main"  # the key of the main output; no module name begins with a dot


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer's weights (its parameters of two or more dimensions).

    Attributes:
        name: the name of the module, or of the weight if it belongs to a parameter list or dict.
        kind: the class of the module.
        weight_norm: norm of the weights.
        gradient_norm: norm of the gradient of the whole loss.
        terms: norm of the gradient through each output, `".main"` and the branches by place, coefficient included; the
            branches only if they were measured separately.
        branch_norm: norm of the gradient through all branches together.
        cosine: between the gradients through the main output and through the branches; None if either is 0.
        num_weights: number of elements.
        num_zero: number of elements with a gradient of exactly 0.
        num_nan: number of elements with a NaN gradient.
        num_inf: number of elements with an infinite gradient.
        vanilla_norm: norm of the gradient of the main output's own loss, as in vanilla training; None if not measured.
            It is not `terms[".main"]` where logits are added, since that loss depends on all outputs, or where the sum
            is convex.
        vanilla_zero: number of elements in which that gradient is exactly 0; None if not measured.
        vanilla_nan: number of elements in which it is NaN; None if not measured.
        vanilla_inf: number of elements in which it is infinite; None if not measured.
    """

    name: str
    kind: str
    weight_norm: float
    gradient_norm: float
    terms: dict[str, float]
    branch_norm: float
    cosine: float | None
    num_weights: int
    num_zero: int
    num_nan: int
    num_inf: int
    vanilla_norm: float | None = None
    vanilla_zero: int | None = None
    vanilla_nan: int | None = None
    vanilla_inf: int | None = None

    @property
    def relative(self) -> float:
        """Gradient norm over weight norm; 0 if all weights are 0."""
        return self.gradient_norm / self.weight_norm if self.weight_norm else 0.0

    @property
    def branch_share(self) -> float:
        """The norm through the branches over the sum of the norms through main output and branches; 0 if both are 0."""
        both = self.terms.get(MAIN, 0.0) + self.branch_norm
        return self.branch_norm / both if both else 0.0


@dataclass(frozen=True)
class Histogram:
    """Histograms over common bins.

    Attributes:
        edges: the edges of the bins, one more than there are bins.
        counts: the count in each bin, by the name of the histogram.
    """

    edges: list[float]
    counts: dict[str, list[int]]


@dataclass(frozen=True)
class Measurement:
    """The result of `measure`.

    Attributes:
        layers: the layers with a gradient, in the order in which a forward first uses them.
        neurons: the layers of neurons, in the order of their first calls.
        loss: the loss of the batch.
        losses: the loss of every output, `".main"` and the branches by place, before weight and coefficient.
        coefficient: the coefficient of the branches.
        num_samples: the number of samples in the batch.
        unused: layers whose weights no output depends on: unused, or cut off, for example by `torch.no_grad()`.
        silent_in_eval: the first layer of neurons that fires in training but never in `eval()`, if all samples get the
            same output there although norms have statistics; None otherwise, and if not measured.
        first_layer: histograms of the gradient of the first layer's weights, `"whole loss"` and, if there are branches,
            `"vanilla"` (figure 2 of the paper); None if not measured, all 0 or not finite.
        unseen: neurons of this package whose forward was not called, such as those that a loop runs by `step()`.
        remembers: whether the same batch gave two different outputs because the network keeps something from one batch
            to the next that no reset undoes; False if not measured or not known.
    """

    layers: list[LayerGradient]
    neurons: list[NeuronActivity]
    loss: float
    losses: dict[str, float]
    coefficient: float
    num_samples: int
    unused: list[str]
    silent_in_eval: str | None = None
    first_layer: Histogram | None = None
    unseen: list[str] = field(default_factory=list)
    remembers: bool = False
