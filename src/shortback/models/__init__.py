"""Spiking networks by name: plain modules on folded time, wrapped by `create_model`."""

from shortback.models.registry import create_model, list_models, register_model
from shortback.models.resnet import ResNet
from shortback.models.vgg import VGG

__all__ = ["VGG", "ResNet", "create_model", "list_models", "register_model"]
