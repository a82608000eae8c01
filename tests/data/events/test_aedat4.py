import struct

import pytest

from shortback.data.events.aedat4 import read_aedat4
from shortback.data.events.formats import read_events
from shortback.errors import UserError

pytest.importorskip("aedat")


def aedat4(events, *, width, height, kind="EVTS"):
    """A file by the format's description: a header and one packet, both FlatBuffers with their sizes before them."""
    path = "/mainloop/Recorder/outInfo/"
    xml = (
        f'<dv version="2.0"><node name="outInfo" path="{path}"><node name="0" path="{path}0/">'
        f'<attr key="compression" type="string">NONE</attr><attr key="typeIdentifier" type="string">{kind}</attr>'
        f'<node name="info" path="{path}0/info/"><attr key="sizeX" type="int">{width}</attr>'
        f'<attr key="sizeY" type="int">{height}</attr></node></node></node></dv>'
    ).encode()
    header = struct.pack("<I4s5Hxx", 20, b"IOHE", 10, 12, 4, 0, 8) + struct.pack("<iiII", 12, 0, 4, len(xml)) + xml
    header += b"\0"
    packed = b"".join(struct.pack("<qhh?3x", *event) for event in events)
    packet = struct.pack("<I4s3Hxx", 16, b"EVTS", 6, 8, 4) + struct.pack("<iII", 8, 4, len(events)) + packed
    sized = [struct.pack("<I", len(part)) + part for part in (header, packet)]
    return b"#!AER-DAT4.0\r\n" + sized[0] + struct.pack("<ii", 0, len(sized[1])) + sized[1]


def test_events_of_a_file_made_by_hand(tmp_path):
    path = tmp_path / "a.aedat4"
    path.write_bytes(aedat4([(10, 1, 2, True), (12, 300, 4, False)], width=346, height=260))
    events = read_aedat4(path)
    assert (events.t.tolist(), events.x.tolist(), events.y.tolist()) == ([10, 12], [1, 300], [2, 4])
    assert events.on.tolist() == [True, False]
    assert (events.height, events.width) == (260, 346)
    assert len(read_events(path.rename(tmp_path / "a.aedat"))) == 2  # by its first line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing at all, but long enough", "cannot be read as AEDAT 4"),
        (aedat4([], width=346, height=260), "there is no event"),
        (aedat4([(10, 1, 2, True)], width=346, height=260)[:-60], "a.aedat4"),
        (aedat4([(10, 400, 2, True)], width=346, height=260), "outside the sensor"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "a.aedat4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_aedat4(path)


GOOD = aedat4([(10, 1, 2, True)], width=346, height=260)


@pytest.mark.parametrize("text", [b"<dv version", b"NONE", b"outInfo", b"</dv>"])
def test_a_header_that_is_no_text_is_named_and_does_not_end_the_process(tmp_path, text):
    path = tmp_path / "a.aedat4"
    place = GOOD.index(text) + 1
    path.write_bytes(GOOD[:place] + b"\xc4" + GOOD[place + 1 :])
    with pytest.raises(UserError, match=r"a\.aedat4: cannot be read as AEDAT 4: its header is damaged"):
        read_aedat4(path)


def test_a_panic_of_the_library_is_named_and_an_interrupt_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "a.aedat4"
    place = GOOD.index(b"<dv") - 2  # the upper bytes of the length of the XML
    path.write_bytes(GOOD[:place] + b"\x9f" + GOOD[place + 1 :])
    with pytest.raises(UserError, match=r"a\.aedat4: cannot be read as AEDAT 4: range end index"):
        read_aedat4(path)

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("aedat.Decoder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_aedat4(path)


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'shortback\[events\]'"):
        read_aedat4(tmp_path / "a.aedat4")
