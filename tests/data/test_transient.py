import errno
import io
import pickle

import pytest
from PIL import Image, UnidentifiedImageError

from shortback.data.transient import explained, is_transient
from shortback.errors import UserError


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOLCK, "No locks available"),
        OSError(errno.ESHUTDOWN, "Cannot send after transport endpoint shutdown"),
        OSError("Failed to decode: IO error: Too many open files (os error 24)"),
        RuntimeError("Too many open files (os error 24)"),
        MemoryError(),
        ImportError("numpy.core.multiarray failed to import"),
    ],
    ids=repr,
)
def test_what_may_be_mended_beside_the_file_is_passing_and_named(error):
    assert is_transient(error)
    said = explained(error, "a.bin")
    assert "a.bin" in str(said)
    assert isinstance(said, UserError if isinstance(error, ImportError) else OSError)
    assert str(pickle.loads(pickle.dumps(said))) == str(said)  # it may come from another process


@pytest.mark.parametrize(
    "error",
    [
        UnidentifiedImageError("cannot identify image file"),
        OSError("image file is truncated"),
        OSError(errno.EINVAL, "Invalid argument"),  # a decoder that was sent before the beginning of a file
        FileNotFoundError(errno.ENOENT, "No such file or directory"),  # a dangling link
        ValueError("bad magic (os error 24)"),
        EOFError(),
    ],
    ids=repr,
)
def test_what_damaged_bytes_raise_is_of_the_file(error):
    assert not is_transient(error)


def test_what_pillow_raises_on_damaged_bytes_is_of_the_file():
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, format="PNG")
    for content in (b"", image.getvalue()[:-30]):
        with pytest.raises((OSError, SyntaxError)) as raised:
            Image.open(io.BytesIO(content)).load()
        assert not is_transient(raised.value)
