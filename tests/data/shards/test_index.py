import json

import pytest

from shortback.data.shards.index import INDEX, Index, read_places
from shortback.errors import UserError


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tree: tree.update(version=2), "is of version 2"),
        (lambda tree: tree.pop("version"), "not an index of shards"),
        (lambda tree: tree["splits"].pop("test"), "has the splits train instead"),
        (lambda tree: tree["splits"]["train"]["shards"][0].update(name="../../outside.tar"), "not the name of a file"),
        (lambda tree: tree["splits"]["test"].update(places="/outside.npz"), "not the name of a file"),
        (lambda tree: tree["splits"]["test"].pop("sha256"), "not an index of shards"),
        (lambda tree: tree.update(more=1), "not an index of shards"),
    ],
)
def test_what_is_no_index_is_refused(packed, change, reason):
    text = (packed / INDEX).read_text()
    assert Index.from_text(text, where="here").to_text() == text
    tree = json.loads(text)
    change(tree)
    with pytest.raises(UserError, match=reason):
        Index.from_text(json.dumps(tree), where="here")


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_no_text_of_another_kind_gets_through(text):
    with pytest.raises(UserError, match="not an index of shards"):
        Index.from_text(text, where="here")


def test_places_of_another_packing_are_refused(packed):
    index = Index.from_text((packed / INDEX).read_text(), where="here")
    (packed / "train.npz").write_bytes((packed / "test.npz").read_bytes())
    with pytest.raises(UserError, match="does not match"):
        read_places(packed / "train.npz", index.splits["train"])
