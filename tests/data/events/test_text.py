import numpy as np
import pytest

from shortback.data.events.formats import read_events
from shortback.data.events.text import read_text
from shortback.errors import UserError

SENSOR = (3, 4)  # height and width


def read(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    return read_text(path, sensor=SENSOR)


@pytest.mark.parametrize(
    "content",
    [
        "t,x,y,p\n1,0,2,0\n5,3,1,1\n",
        "x,y,p,t\n0,2,-1,1\n3,1,1,5\n",
        "# camera 7\n# t x y p\n1 0 2 0\n5 3 1 1\n",
        "timestamp, x, y, polarity\r\n1, 0, 2, False\r\n5, 3, 1, True\r\n",
        '\ufeffTime;X;Y;"Pol";noise\n1;0;2;0;0.5\n5;3;1;1;0.25\n\n',
        "%t\tx\ty\tp\n1.0\t0\t2\t0\n5.0\t3\t1\t1",
    ],
)
def test_columns_are_those_that_a_line_names(tmp_path, content):
    found = read(tmp_path, content)
    assert (found.t.tolist(), found.x.tolist(), found.y.tolist()) == ([1, 5], [0, 3], [2, 1])
    assert found.on.tolist() == [False, True]
    assert (found.height, found.width) == SENSOR


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3,0\n", r"no line before the first event names its columns.*such as\n    t,x,y,p"),
        ("", "no line before the first event names its columns"),
        ("a note\n", "no line before the first event names its columns"),
        ("t,x,y,p\n", "there is no event in it"),
        ("t,x,y\n1,2,1\n", "its columns are t, x, y, and none is p"),
        ("t,x,y,p\n1,2,1\n", "no line before the first event names its columns"),
        ("t,x,y,p\n1,2,1,0\n5,2\n", "cannot be read as lines of t, x, y, p"),
        ("t,x,y,p\n1,2,1,0\n5,,1,1\n", "cannot be read as lines of t, x, y, p"),
        ("t,x,y,p\n0.25,2,1,0\n0.5,2,1,1\n", "look like seconds"),
        ("t,x,y,p\n1,2,7,0\n", "outside the sensor"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"(?s)a\.csv.*{message}"):
        read(tmp_path, content)


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=r"a\.txt: is not a text file"):
        read_events(tmp_path / "a.txt", sensor=SENSOR)


def test_numbers_are_exact(tmp_path):
    t = 1_700_000_000_000_000 + np.arange(5)
    rows = np.stack([t, np.zeros(5, int), np.zeros(5, int), np.ones(5, int)], 1)
    np.savetxt(tmp_path / "a.txt", rows, "%d", header="t x y p")
    assert read_events(tmp_path / "a.txt", sensor=SENSOR).t.tolist() == t.tolist()
