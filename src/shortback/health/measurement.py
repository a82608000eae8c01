"""What a measurement of gradients holds, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

from shortback.health.activity import NeuronActivity

MAIN = ".main"  # which no module is called: their names begin with no dot


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer's weights (its parameters of two or more dimensions).

    Attributes:
        name: of the module, or of the weight where it is one of an `nn.ParameterList`.
        kind: its class.
        weight_norm: of the weights.
        gradient_norm: of the gradient of the whole loss.
        terms: norm of the gradient through each output, `".main"` and the branches by place, coefficient included.
        branch_norm: of the gradient through all branches together.
        cosine: between the gradient through the main output and that through the branches; None if one is 0.
        num_weights: elements.
        num_zero: elements with a gradient of exactly 0.
        num_nan: elements with a gradient of NaN.
        num_inf: elements with an infinite gradient.
        vanilla_norm: of the gradient that the loss of the main output alone gives, which is that of vanilla training.
            Where logits are added it is not `terms[".main"]`: there the one loss depends on all outputs. None if it was
            not measured.
        vanilla_zero: elements in which that gradient is exactly 0.
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

    @property
    def relative(self) -> float:
        """Gradient norm over weight norm; 0 for weights that are all 0."""
        return self.gradient_norm / self.weight_norm if self.weight_norm else 0.0

    @property
    def branch_share(self) -> float:
        """Norm through the branches over the sum of the norms through main output and branches."""
        both = self.terms.get(MAIN, 0.0) + self.branch_norm
        return self.branch_norm / both if both else 0.0


@dataclass(frozen=True)
class Histogram:
    """How often numbers fall into bins.

    Attributes:
        edges: of the bins, one more than there are bins.
        counts: by the name of what was counted, a number a bin.
    """

    edges: list[float]
    counts: dict[str, list[int]]


@dataclass(frozen=True)
class Measurement:
    """What `measure` saw.

    Attributes:
        layers: in the order in which a forward first uses them.
        neurons: in that order too.
        loss: of the batch.
        losses: of every output, `".main"` and the branches by place, before weight and coefficient.
        coefficient: of the branches.
        num_samples: in the batch.
        unused: layers with weights that no output leads back to: not used, or cut off, as by `torch.no_grad()`.
        silent_in_eval: the first layer of neurons that fires in training and never in `eval()`, where all samples get
            the same output although norms have statistics; None elsewhere, and if not asked for.
        first_layer: the gradient of every weight of the first layer, by `"whole loss"` and, if there are branches,
            by `"vanilla"` (figure 2 of the paper); None if it was not asked for or is not finite.
        unseen: neurons of this package whose forward was not called, as those that a loop runs by `step()`.
        remembers: whether the same batch gave two outputs because of what the network keeps from one to the next and no
            reset undoes; False if not asked for, or not known.
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
