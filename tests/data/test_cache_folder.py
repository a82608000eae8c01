from pathlib import Path

import pytest

from shortback.data.cache_folder import cache_folders, first_writable


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "shortback"


def test_the_folder_itself_is_the_best_place_and_the_user_s_the_next(tmp_path: Path, user: Path) -> None:
    inside, outside = cache_folders(tmp_path / "pets", None)
    assert inside == tmp_path / "pets" / ".shortback-cache"
    assert outside.parent == user
    assert outside.name.startswith("pets-")


def test_a_folder_that_is_given_is_the_only_place_and_tells_roots_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    (one,) = cache_folders(tmp_path / "pets", cache)
    assert one.parent == cache
    assert cache_folders(Path("pets"), cache) == [one]
    assert cache_folders(tmp_path / "more" / "pets", cache) != [one]


def test_the_first_that_can_be_written_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folders = [tmp_path / "file" / "a", tmp_path / "b" / "c", tmp_path / "d"]
    assert first_writable(folders, what="frames") == folders[1]
    assert folders[1].is_dir()
    assert not folders[2].exists()
    with pytest.raises(OSError, match=r"^frames cannot be cached: none of .*a is writable; set cache_dir to"):
        first_writable(folders[:1], what="frames")
