"""What is no recipe is refused in a line, and none of its own lines is shown."""

import pytest

from shortback.recipes.yaml_text import RecipeError, read_keys, read_yaml, text_of, write_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nmodel:\n  a: 1\n  a: 2\n", "name, line 4: not valid YAML, 'a' appears twice"),
        ("seed: 1\nseed: 1\n", "name, line 2.*'seed' appears twice"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: [1", "line 1: not valid YAML"),
        ("", "is not a recipe"),
        ("words", "is not a recipe"),
        ("- 1\n- 2", "is not a recipe"),
        ("3: 4", "is not a recipe"),
        ("root:*:1:0:99999:7:::\nx: 1", "is not a recipe"),
        ("\x07: 1", "not valid YAML"),
        ("a: 1\ntrain: {[a]: 1}", "name, line 2: not valid YAML, found unhashable key"),
        ("a: 1\nseed: 2001-99-99", "name, line 2: not valid YAML, a value is not a valid timestamp"),
        ("seed: !!int 99999x", "name, line 1: not valid YAML, a value is not a valid int"),
        ("seed: !!int ''", "a value is not a valid int"),
        ("seed: [!!bool x]", "a value is not a valid bool"),
        ("seed: !!timestamp x", "a value is not a valid timestamp"),
    ],
    ids=range(16),
)
def test_what_is_refused(text, message):
    with pytest.raises(RecipeError, match=message) as refusal:
        read_keys(text, name="name")
    assert "99999" not in str(refusal.value)


def test_values_are_those_of_yaml():
    assert read_yaml("{a: [1, 2.5, off], b: null}", name="") == {"a": [1, 2.5, False], "b": None}


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xfe", "not a text file"), (b"a" * 1_000_001, "longer than")])
def test_files_that_are_no_text(tmp_path, content, message):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        text_of(file)


@pytest.mark.parametrize(("text", "value"), [("1e-2", 0.01), ("5E3", 5e3), ("-.5e+1", -5.0), ("2.e2", 200.0)])
def test_a_number_with_an_exponent_is_one(text, value):
    assert read_yaml(f"[{text}]", name="") == [value]
    assert read_yaml(f"['{text}', {text}x, e{text[1:]}]", name="") == [text, f"{text}x", f"e{text[1:]}"]


@pytest.mark.parametrize(
    "value", ["1e-2", 1e-2, 1e-7, 1e38, "5E3", "a1e2", "off", None, [1, 2.0], {"b": "1e5", "a": 1}]
)
def test_what_is_written_is_read_as_the_same(value):
    assert read_yaml(write_yaml(value), name="") == value


@pytest.mark.parametrize("text", ["010", "-017", "1:30", "0_1", "190:20:30.15"])
def test_numbers_in_other_bases_are_refused(text):
    with pytest.raises(RecipeError, match=r"read as another number in YAML 1\.1"):
        read_yaml(f"a: {text}", name="it")


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("0.5", 0.5), ("-0.5", -0.5), ("0e1", 0.0), ("'010'", "010"), ("10", 10)]
)
def test_numbers_in_base_ten_are_read(text, value):
    assert read_yaml(f"a: {text}", name="it") == {"a": value}
