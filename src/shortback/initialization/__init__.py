"""Initial weights with which a spiking network fires."""

from shortback.initialization.scaling import LayerScaling as LayerScaling
from shortback.initialization.scaling import Scaling as Scaling
from shortback.initialization.scaling import scale_to_rate as scale_to_rate
