"""Spiking networks: the wrapper that owns the time steps, and `shortback.spikify`, which converts any ANN."""

from shortback.spiking.network import SpikingNetwork

__all__ = ["SpikingNetwork"]
