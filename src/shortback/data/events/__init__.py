"""Event-camera recordings: readers of file formats, conversion to frames, their cache, and data sources."""

from shortback.data.events.cifar10_dvs import load_cifar10_dvs
from shortback.data.events.dvs_gesture import load_dvs_gesture
from shortback.data.events.event_folder import load_event_folder
from shortback.data.events.folders import load_ncaltech101, load_nmnist
from shortback.data.events.formats import read_events
from shortback.data.events.frames import Frames, to_frames
from shortback.data.events.recording import Events
from shortback.data.events.simulated import load_simulated_events

__all__ = [
    "Events",
    "Frames",
    "load_cifar10_dvs",
    "load_dvs_gesture",
    "load_event_folder",
    "load_ncaltech101",
    "load_nmnist",
    "load_simulated_events",
    "read_events",
    "to_frames",
]
