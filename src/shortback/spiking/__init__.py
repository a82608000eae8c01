"""Spiking networks: the wrapper that owns the time steps, and `shortback.spikify`, which makes one from any ANN."""

from shortback.spiking.network import Readout, SpikingNetwork

__all__ = ["Readout", "SpikingNetwork"]
