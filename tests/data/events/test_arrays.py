import errno
import fcntl

import numpy as np
import pytest

from shortback.data.events.arrays import read_hdf5, read_npz
from shortback.data.events.recording import MissingLibraryError
from shortback.data.events.sensor import SensorUnknownError
from shortback.errors import UserError

FIELDS = {"t": np.array([1, 5]), "x": np.array([0, 3]), "y": np.array([2, 1]), "p": np.array([0, 1])}


def check(found, height=3, width=4):
    assert (found.t.tolist(), found.x.tolist(), found.y.tolist()) == ([1, 5], [0, 3], [2, 1])
    assert found.on.tolist() == [False, True]
    assert (found.height, found.width) == (height, width)


SENSOR = (3, 4)  # height and width


def test_npz_and_npy(tmp_path):
    np.savez(tmp_path / "a.npz", **FIELDS)
    check(read_npz(tmp_path / "a.npz", sensor=SENSOR))
    np.savez(tmp_path / "b.npz", **FIELDS, height=10, width=20)
    check(read_npz(tmp_path / "b.npz"), 10, 20)
    rows = np.array([(1, 0, 2, -1), (5, 3, 1, 1)], dtype=[("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "i1")])
    np.save(tmp_path / "a.npy", rows)
    check(read_npz(tmp_path / "a.npy", sensor=SENSOR))


def test_a_size_is_the_file_s_or_the_setting_and_never_both(tmp_path):
    np.savez(tmp_path / "a.npz", **FIELDS)
    check(read_npz(tmp_path / "a.npz", sensor=(10, 20)), 10, 20)
    with pytest.raises(SensorUnknownError, match=r"a\.npz: does not say how large the sensor is"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **FIELDS, height=10, width=20)
    check(read_npz(tmp_path / "b.npz", sensor=(10, 20)), 10, 20)
    with pytest.raises(UserError, match=r"b\.npz: its sensor has a width of 20 pixels, but the setting is .*\[10, 4\]"):
        read_npz(tmp_path / "b.npz", sensor=(10, 4))


def test_names_that_other_programs_write_are_known(tmp_path):
    rows = np.array(
        [(1, 0, 2, 0), (5, 3, 1, 1)], dtype=[("timestamp", "i8"), ("x", "i2"), ("y", "i2"), ("polarity", "i1")]
    )
    np.save(tmp_path / "a.npy", rows)
    check(read_npz(tmp_path / "a.npy", sensor=SENSOR))
    np.savez(tmp_path / "a.npz", Time=FIELDS["t"], X=FIELDS["x"], Y=FIELDS["y"], pol=FIELDS["p"], height=3, width=4)
    check(read_npz(tmp_path / "a.npz"))
    np.save(tmp_path / "b.npy", np.zeros((2, 4)))
    with pytest.raises(UserError, match=r"b\.npy: has no t, x, y, p; .* has no named arrays"):
        read_npz(tmp_path / "b.npy")


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    for name, group in (("a.h5", "/"), ("b.h5", "/events")):
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in FIELDS.items():
                file.require_group(group)[key] = values
        check(read_hdf5(tmp_path / name, sensor=SENSOR))
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["events"].attrs.update(height=5, width=6)
    check(read_hdf5(tmp_path / "b.h5"), 5, 6)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.update({f"events/{key}": values for key, values in FIELDS.items()})
        file.update({"height": 7, "width": 8})
    check(read_hdf5(tmp_path / "d.h5"), 7, 8)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.update({f"events/{key}": values for key, values in FIELDS.items()})
        file["width"] = FIELDS["x"]
        file.create_group("height")
    check(read_hdf5(tmp_path / "e.h5", sensor=SENSOR))
    (tmp_path / "c.h5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match=r"c\.h5: cannot be read as HDF5"):
        read_hdf5(tmp_path / "c.h5")


def test_hdf5_of_one_dataset_with_fields(tmp_path):
    h5py = pytest.importorskip("h5py")
    rows = np.array([(1, 0, 2, 0), (5, 3, 1, 1)], dtype=[("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "u1")])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["events"] = rows
    check(read_hdf5(tmp_path / "a.h5", sensor=SENSOR))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["events"] = np.zeros((2, 4))
    with pytest.raises(UserError, match=r"b\.h5: has no t, x, y, p"):
        read_hdf5(tmp_path / "b.h5")


def test_a_filter_that_is_not_installed_is_not_damage(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((2,))
        created.set_filter(32766, h5py.h5z.FLAG_OPTIONAL, ())  # of nobody
        for name, values in FIELDS.items():
            space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
            h5py.h5d.create(file.id, name.encode(), kind, space, created).write(space, space, values)
    with pytest.raises(MissingLibraryError, match=r"a\.h5: is compressed by HDF5 filter 32766.*pip install hdf5plugin"):
        read_hdf5(tmp_path / "a.h5", sensor=SENSOR)


def test_hdf5_is_read_without_a_lock(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update(FIELDS)
    with (tmp_path / "a.h5").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        check(read_hdf5(tmp_path / "a.h5", sensor=SENSOR))


def test_hdf5_with_a_group_for_an_array_is_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.require_group("t")["values"] = FIELDS["t"]
    with pytest.raises(UserError, match=r"a\.h5: cannot be read as HDF5"):
        read_hdf5(tmp_path / "a.h5")


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'shortback\[events\]'"):
        read_hdf5(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p": None}, "has no p; it needs t"),
        ({"x": np.array([1])}, r"t \[2\], x \[1\]"),
        ({key: np.array([], dtype=int) for key in FIELDS}, "there is no event"),
        ({"x": np.array([-1, 0])}, "outside the sensor"),
        ({"y": np.array([-3, 0], np.int16), "x": np.array([1, 0], np.uint16)}, "outside the sensor"),
        ({"x": np.array([-1.0, 0.0])}, "outside the sensor"),
        ({"x": np.array([np.nan, 0])}, "x must be whole numbers"),
        ({"p": np.array([np.nan, 0])}, "p must be whole numbers"),
        ({"t": np.array([0.1, 0.5])}, r"look like seconds.*write \(t \* 1e6\)"),
        ({"height": np.array([3, 4])}, r"height must be one number of pixels, not \[3, 4\]"),
        ({"width": -3}, "width must be one number of pixels, not -3"),
        ({"width": np.nan}, "width must be one number of pixels, not nan"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    fields = {key: value for key, value in {**FIELDS, **changes}.items() if value is not None}
    np.savez(tmp_path / "a.npz", **fields)
    with pytest.raises(UserError, match=rf"a\.npz.*{message}"):
        read_npz(tmp_path / "a.npz")


def test_damaged_bytes_of_a_compressed_array_are_named(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **{name: np.arange(5000) % 7 for name in "txyp"})
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[90:140] = bytes(50)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz: cannot be read as a NumPy file"):
        read_npz(tmp_path / "a.npz")


def test_another_file_of_that_name(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="cannot be read as a NumPy file"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(("name", "read"), [("a.npz", read_npz), ("a.h5", read_hdf5)])
def test_what_is_no_fault_of_the_file_is_not_said_to_be_one(tmp_path, monkeypatch, name, read):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    if read is read_hdf5:
        monkeypatch.setattr(pytest.importorskip("h5py"), "File", refused)
    else:
        monkeypatch.setattr(np, "load", refused)
    with pytest.raises(PermissionError):
        read(tmp_path / name)


def test_a_damaged_header_that_asks_for_any_memory_is_named(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3, dtype=[(name, "<i8") for name in "txyp"]))
    content = path.read_bytes()
    damaged = content.replace(b"(3,), }" + b" " * 14, b"(999999999999999,), }")
    assert len(damaged) == len(content)
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"a\.npy: cannot be read as a NumPy file"):
        read_npz(path)
