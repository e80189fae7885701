"""Good files become Arrow files; bad ones become errors that say where and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import LuthierError, Unprocessable
from ingest.limits import Limits
from tests.ingest.make import lines
from tests.ingest.reading import ingest, refused

GOOD = lines({"text": "fine", "label": "pos"}, {"text": "dull", "label": "neg"})


def test_jsonl(tmp_path: Path) -> None:
    prepared, rows = ingest(tmp_path, GOOD)
    empty = {"text_pair": None, "labels": None, "target": None}
    assert rows == [
        {"id": 1, "text": "fine", "label": "pos"} | empty,
        {"id": 2, "text": "dull", "label": "neg"} | empty,
    ]
    assert prepared.labels == ["neg", "pos"]
    assert prepared.report["labels"] == {"neg": 1, "pos": 1}


def test_csv_records_may_span_lines(tmp_path: Path) -> None:
    _, rows = ingest(tmp_path, 'text,label\r\n"two\nlines, ""quoted""",a\r\n\r\nplain,b\r\n')
    assert [(row["id"], row["text"]) for row in rows] == [
        (2, 'two\nlines, "quoted"'),
        (5, "plain"),
    ]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiters(tmp_path: Path, delimiter: str) -> None:
    _, rows = ingest(tmp_path, f"text{delimiter}label\none{delimiter}a\ntwo{delimiter}b\n")
    assert [row["label"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    mark = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}.get(encoding, "")
    content = (mark + "text,label\nŽluť 😀 déjà,a\nsecond,b\n").encode(encoding)
    _, rows = ingest(tmp_path, content)
    assert rows[0]["text"] == "Žluť 😀 déjà"


def test_labels_become_their_canonical_text(tmp_path: Path) -> None:
    values = [0, 1.0, True, "1", "spam"]
    prepared, _ = ingest(tmp_path, lines(*({"text": "t", "label": value} for value in values)))
    assert prepared.report["labels"] == {"0": 1, "1": 2, "spam": 1, "true": 1}


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("review,sentiment", False),
        ("Text,LABEL", False),
        ("premise,hypothesis,label", True),
        ("text_b,text_a,category", True),
        ("sentence1,sentence2,label", True),
    ],
)
def test_other_names_of_columns(tmp_path: Path, header: str, pair: bool) -> None:
    width = header.count(",") + 1
    body = "".join(",".join([f"v{row}"] * width) + "\n" for row in range(3))
    _, rows = ingest(tmp_path, f"{header}\n{body}")
    assert (rows[0]["text_pair"] is not None) is pair


def test_column_mapping_says_where_our_columns_are(tmp_path: Path) -> None:
    content = lines(
        {"body": "x", "stars": 1, "text": "no"}, {"body": "y", "stars": 2, "text": "no"}
    )
    prepared, rows = ingest(tmp_path, content, column_mapping={"text": "body", "label": "stars"})
    assert [row["text"] for row in rows] == ["x", "y"]
    assert prepared.report["ignored_columns"] == ["text"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"body": "text"}, "Turn it around"),
        ({"text": "txet"}, "Did you mean `text`?"),
        ({"nonsense": "text"}, "Keys are the task's columns"),
    ],
)
def test_mapping_that_cannot_be_meant(
    tmp_path: Path, mapping: dict[str, str], message: str
) -> None:
    with pytest.raises(Unprocessable, match="column_mapping") as caught:
        ingest(tmp_path, GOOD, column_mapping=mapping)
    assert message in str(caught.value)
    assert caught.value.param == "column_mapping"


def test_same_bytes_give_the_same_hash(tmp_path: Path) -> None:
    assert ingest(tmp_path, GOOD)[0].sha256 == ingest(tmp_path, GOOD)[0].sha256
    other = GOOD.replace(b"fine", b"good")
    assert ingest(tmp_path, other)[0].sha256 != ingest(tmp_path, GOOD)[0].sha256


def test_rows_are_written_in_batches(tmp_path: Path) -> None:
    content = lines(*({"text": f"t{n}", "label": n % 2} for n in range(100)))
    _, rows = ingest(tmp_path, content, limits=Limits(batch_rows=7))
    assert [row["text"] for row in rows] == [f"t{n}" for n in range(100)]
    with pa.memory_map(str(tmp_path / "out.arrow")) as mapped:
        assert pa.ipc.open_file(mapped).num_record_batches == 15


def test_broken_line_is_named(tmp_path: Path) -> None:
    broken = GOOD * 8 + b'{"text": "x" "label": 1}\n{"text": 5}\n'
    error = refused(tmp_path, broken)
    assert str(error) == (
        "train.jsonl line 17: not valid JSON (expecting ',' delimiter at column 14). "
        "Fix that line or leave it out. 2 more problems."
    )
    assert error.param == "training_file"
    assert error.error_code == "bad_data"
    assert [(item["line"], item["column"], item["code"]) for item in error.details] == [
        (17, None, "invalid_json"),
        (18, "text", "wrong_type"),
        (18, "label", "missing_value"),
    ]


def test_problems_beyond_the_cap_are_counted(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD + b"{\n" * 250)
    assert len(error.details) == 100
    assert "249 more problems" in str(error)
    assert error.error_code == "invalid_json"


def test_validation_labels_must_be_known(tmp_path: Path) -> None:
    content = lines({"text": "x", "label": "pos"}, {"text": "y", "label": "odd"})
    error = refused(tmp_path, content, role="validation", labels=["neg", "pos"])
    assert error.param == "validation_file"
    assert (error.error_code, error.details[0]["line"]) == ("label_unseen", 2)
    assert "neg, pos" in str(error)


def test_validation_may_have_one_class(tmp_path: Path) -> None:
    content = lines({"text": "x", "label": "pos"})
    prepared, _ = ingest(tmp_path, content, role="validation", labels=["neg", "pos"])
    assert prepared.labels == ["pos"]


BAD: list[tuple[str, bytes, str, int | None, str]] = [
    ("empty", b"", "empty_file", None, "empty"),
    ("blank", b"\n \n", "empty_file", None, "empty"),
    ("header alone", b"text,label\n", "no_rows", None, "no rows"),
    ("no columns", b"a,b\n1,2\n", "missing_columns", None, '{"text": "'),
    ("one column", b"text\nhello\n", "missing_columns", None, "`label`"),
    ("prose", b"Once upon a time\nthere was\n", "missing_columns", None, "`text`"),
    ("two aliases", b"review,comment,label\na,b,c\n", "ambiguous_columns", None, "`comment`"),
    ("doubled column", b"text,text,label\na,b,c\n", "duplicate_columns", 1, "more than once"),
    ("ragged", b"text,label\na,b\nc\nd,e\n", "ragged_row", 3, "1 field where the header has 2"),
    ("open quote", b'text,label\n"a,b\nc,d\n', "invalid_csv", 2, "write a quote twice"),
    ("stray quote", b'text,label\n"a"x,b\nc,d\n', "invalid_csv", 2, "expected after"),
    ("one class", b"text,label\na,x\nb,x\n", "one_class", None, "`x`"),
    ("empty text", b"text,label\n ,x\nb,y\n", "empty_text", 2, "Fill it in"),
    ("no label", b"text,label\na,\nb,y\nc,z\n", "missing_value", 2, "no label"),
    ("null label", GOOD + b'{"text":"a","label":null}', "missing_value", 3, "no value"),
    ("list as text", GOOD + b'{"text":["a"],"label":"a"}', "wrong_type", 3, "a list"),
    ("float label", GOOD + b'{"text":"a","label":0.5}', "wrong_type", 3, "`target`"),
    ("object label", GOOD + b'{"text":"a","label":{}}', "wrong_type", 3, "an object"),
    ("array line", GOOD + b"[1]", "not_an_object", 3, "an object expected"),
    ("cut off", GOOD + b'{"text": "a', "invalid_json", 3, "unterminated string"),
    ("NaN", GOOD + b'{"text": NaN}', "invalid_json", 3, "NaN is not a JSON value"),
    ("deep", GOOD + b'{"text":' + b"[" * 99999, "json_too_deep", 3, "deeply"),
    ("surrogate", GOOD + b'{"text":"\\ud800 x"}', "invalid_json", 3, "surrogate"),
    ("latin-1", "text,label\ndéjà,x\nb,y\n".encode("latin-1"), "invalid_encoding", 2, "offset 12"),
    ("latin-1 jsonl", GOOD + b'{"text":"\xe9"}', "invalid_encoding", 3, "0xe9"),
    ("cut UTF-16", b"\xff\xfe" + "text,label\na,b\n".encode("utf-16-le")[:-1], "invalid_encoding",
     None, "UTF-16"),
    ("NUL in CSV", b"text,label\na\x00b,x\nc,y\n", "nul_byte", 2, "column 2"),
    ("NUL in JSON", GOOD + b'{"text":"\x00"}', "nul_byte", 3, "NUL"),
    ("zip", b"PK\x03\x04....", "invalid_archive", None, "zip"),
    ("binary", bytes(range(256)) * 4, "unsupported_format", None, "binary"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "code", "line", "says"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_bad_file(tmp_path: Path, content: bytes, code: str, line: int | None, says: str) -> None:
    error = refused(tmp_path, content)
    assert error.details[0]["code"] == code
    assert error.details[0]["line"] == line
    assert says in str(error)
    assert len(str(error)) < 1000


def test_over_long_line_is_refused_without_reading_on(tmp_path: Path) -> None:
    error = refused(tmp_path, b'{"text": "' + b"x" * 10_000, limits=Limits(max_line_bytes=1000))
    assert error.error_code == "line_too_long"
    assert error.details[0]["line"] == 1


def test_unclosed_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    content = b'text,label\nok,a\n"open,b\n' + b"row,c\n" * 1000
    error = refused(tmp_path, content, limits=Limits(max_line_bytes=1000))
    assert (error.error_code, error.details[0]["line"]) == ("line_too_long", 3)


def test_places_hold_in_files_of_many_blocks(tmp_path: Path) -> None:
    """Files are read a megabyte at a time, and lines lie across the cuts."""
    rows = [{"text": f"{n} " + "é" * (n % 977), "label": n % 2} for n in range(4000)]
    good = lines(*rows)
    assert len(good) > 3 * 1024**2
    _, read = ingest(tmp_path, good)
    assert [(row["id"], row["text"]) for row in read] == [
        (n + 1, row["text"]) for n, row in enumerate(rows)
    ]
    (tmp_path / "out.arrow").unlink()
    error = refused(tmp_path, good + b'{"text": "\xff"}\n')
    assert error.details[0]["line"] == 4001
    assert f"at offset {len(good) + 10} of" in str(error)


def test_unknown_task(tmp_path: Path) -> None:
    with pytest.raises(LuthierError, match=r"Known tasks: .*text-classification"):
        ingest(tmp_path, GOOD, task="mind-reading")


def test_ingest_never_loads_torch() -> None:
    code = (
        "import sys, ingest.prepare, ingest.tasks; ingest.tasks.all_formats();"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
