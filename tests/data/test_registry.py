from pathlib import Path
from typing import Any

import pytest

from shortback.data import load_data
from shortback.data.events import Frames
from shortback.errors import UserError


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cifar", "no data of kind 'cifar'; the nearest are cifar10, cifar100"),
        ("imagefolder", "the nearest are image_folder"),
        ("svhn", "known: bundled, fashion_mnist, cifar10, cifar100, image_folder"),
    ],
)
def test_an_unknown_kind_is_an_error_with_the_nearest(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(kind)


def test_an_image_folder_needs_its_root() -> None:
    with pytest.raises(ValueError, match="'image_folder' needs root"):
        load_data("image_folder")


def test_an_event_folder_needs_its_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHORTBACK_DATA", str(tmp_path))  # which is for sets that are downloaded
    with pytest.raises(UserError, match="'event_folder' needs root"):
        load_data("event_folder", frames=Frames(num_steps=2, size=8))


def test_what_the_network_sees_can_be_chosen() -> None:
    data = load_data("bundled", image_size=32, mean=[0.5], std=[0.25])
    assert (data.image_size, data.mean, data.std) == (32, (0.5,), (0.25,))
    assert data.train.image(0).shape == (1, 28, 28)


def test_the_choice_is_checked() -> None:
    with pytest.raises(ValueError, match="mean needs 1 numbers"):
        load_data("bundled", mean=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        load_data("bundled", image_size=0)


def test_settings_reach_the_image_folder(image_root: Path, tmp_path: Path) -> None:
    (image_root / "train" / "cat" / "000.png").write_bytes(b"")
    data = load_data("image_folder", root=str(image_root), skip_bad=True, cache_dir=tmp_path / "cache")
    assert (data.name, len(data.train)) == ("pets", 9)
    assert len(list((tmp_path / "cache").glob("pets-*/*.raw"))) == 1


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            "bundled",
            {"root": "x"},
            "root='x' is for data that do not come with the package, not for bundled; .* root=null",
        ),
        (
            "bundled",
            {"download": True},
            "download=True is for cifar10 and the like, not for bundled; .* download=false",
        ),
        ("bundled", {"skip_bad": True}, "skip_bad=True is for image_folder and .*, not for bundled"),
        ("simulated_events", {"root": Path("x")}, "root=x is for data that do not come with the package"),
        ("simulated_events", {"skip_bad": True}, "skip_bad=True is for image_folder and .*, not for simulated_events"),
        ("cifar10", {"skip_bad": True}, "skip_bad=True is for image_folder and .*, not for cifar10"),
        ("image_folder", {"download": True}, "download=True is for cifar10 and the like, not for image_folder"),
        ("nmnist", {"download": True}, "download=True is for cifar10 and the like, not for nmnist"),
        (
            "nmnist",
            {"sensor": (34, 34)},
            r"sensor=\(34, 34\) is for event_folder, whose files may not give it, not",
        ),
        ("bundled", {"sensor": (34, 34)}, r"sensor=\(34, 34\) is for event_folder"),
        (
            "nmnist",
            {"split": "seeded"},
            r"split='seeded' is for recordings without an official split \(cifar10_dvs, event_folder\), not for",
        ),
    ],
)
def test_no_setting_is_passed_over(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_data(
            kind, frames=Frames(num_steps=2, size=4) if kind in ("nmnist", "simulated_events") else None, **settings
        )


def test_settings_at_their_defaults_are_for_all_kinds() -> None:
    assert load_data("bundled", root=None, download=False, skip_bad=False, cache_dir=None, split=None).num_classes == 10
