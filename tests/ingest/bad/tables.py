"""CSV, TSV, JSON Lines, JSON documents, Parquet, plain text and CoNLL."""

from __future__ import annotations

import codecs
import json

from ingest.limits import Limits
from tests.ingest.bad import Bad
from tests.ingest.make import lines, parquet, zstd

GOOD = lines({"text": "fine", "label": "pos"}, {"text": "dull", "label": "neg"})
TABLE = b"text,label\nfine,pos\ndull,neg\n"
SMALL = Limits(max_line_bytes=1000)
FEW = Limits(max_columns=5)
PARQUET = parquet([{"text": "fine", "label": "pos"}, {"text": "dull", "label": "neg"}])
LIST = json.dumps([{"text": "fine", "label": "pos"}, {"text": "dull", "label": "neg"}])


def third(row: str) -> bytes:
    """Two good rows and this one, on line 3."""
    return GOOD + row.encode() + b"\n"


FILES = [
    Bad("empty", b"", "empty_file", None, "empty"),
    Bad("blanks alone", b" \n\n\t\n", "empty_file", None, "empty"),
    Bad("a byte order mark alone", codecs.BOM_UTF8, "empty_file", None, "empty"),
    Bad("a UTF-16 mark alone", codecs.BOM_UTF16_LE, "empty_file", None, "empty"),
    Bad("an executable", b"\x7fELF" + bytes(range(32)) * 20, "unsupported_format", None, "binary"),
    Bad("a PDF", b"%PDF-1.7\n1 0 obj\n", "unsupported_format", None, "a PDF"),
    Bad("an image", b"\x89PNG\r\n\x1a\n....", "unsupported_format", None, "PNG image"),
    Bad("an old spreadsheet", b"\xd0\xcf\x11\xe0\xa1\xb1", "unsupported_format", None, "Office"),
    Bad("a database", b"SQLite format 3\x00....", "unsupported_format", None, "SQLite"),
    Bad("a RAR", b"Rar!\x1a\x07\x00....", "unsupported_format", None, "RAR"),
    Bad("a 7-Zip", b"7z\xbc\xaf\x27\x1c", "unsupported_format", None, "7-Zip"),
    Bad("xz", b"\xfd7zXZ\x00....", "unsupported_format", None, "an xz file"),
    Bad("an Arrow file", b"ARROW1\x00\x00....", "unsupported_format", None, "an Arrow file"),
    Bad("NumPy", b"\x93NUMPY\x01\x00", "unsupported_format", None, "NumPy"),
    Bad("UTF-16 without its mark", TABLE.decode().encode("utf-16-le"), "unsupported_format", None,
        "UTF-16 without its byte order mark"),
    Bad("a recording", b"RIFF\x24\x00\x00\x00WAVE", "unsupported_format", None, "WAV"),
]  # fmt: skip

ENCODINGS = [
    Bad("Latin-1 CSV", "text,label\ndéjà,x\n".encode("latin-1"), "invalid_encoding", 2,
        "0xe9 at offset 12"),
    Bad("Windows-1251", TABLE + "да,pos\n".encode("cp1251"), "invalid_encoding", 4, "not UTF-8"),
    Bad("Latin-1 JSON", GOOD + b'{"text": "d\xe9j\xe0", "label": "x"}\n', "invalid_encoding", 3,
        "0xe9"),
    Bad("a cut character", GOOD + b'{"text": "\xf0\x9f\x98", "label": "x"}', "invalid_encoding", 3,
        "not UTF-8"),
    Bad("an overlong NUL", TABLE + b"\xc0\x80,pos\n", "invalid_encoding", 4, "0xc0"),
    Bad("an encoded surrogate", TABLE + b"\xed\xa0\x80,pos\n", "invalid_encoding", 4, "0xed"),
    Bad("an odd byte in UTF-16", TABLE.decode().encode("utf-16") + b"x", "invalid_encoding", None,
        "UTF-16"),
    Bad("half a pair in UTF-16", (TABLE.decode() + "x").encode("utf-16") + b"\x00\xd8,\x00",
        "invalid_encoding", None, "UTF-16"),
    Bad("beyond Unicode in UTF-32", codecs.BOM_UTF32_LE + b"t\x00\x00\x00\xff\xff\xff\x7f",
        "invalid_encoding", None, "UTF-32"),
    Bad("encodings mixed", TABLE + "naïve,pos\n".encode() + "naïve,pos\n".encode("latin-1"),
        "invalid_encoding", 5, "0xef"),
    Bad("a header in Latin-1", "té,label\na,b\n".encode("latin-1"), "invalid_encoding", 1, "0xe9"),
    Bad("Latin-1 in a JSON document", '[{"text": "é", "label": "a"}]'.encode("latin-1"),
        "invalid_encoding", None, "offset 11"),
    Bad("NUL in CSV", TABLE + b"a\x00b,pos\n", "nul_byte", 4, "column 2"),
    Bad("NUL in a header", b"te\x00xt,label\na,b\nc,d\n", "nul_byte", 1, "column 3"),
    Bad("NUL in JSON", GOOD + b'{"text": "\x00"}\n', "nul_byte", 3, "NUL"),
    Bad("NULs after a crash", GOOD * 9 + bytes(20), "nul_byte", 19, "cut off"),
    Bad("NUL escaped in JSON", third('{"text": "a\\u0000b", "label": "x"}'), "nul_byte", 3, "NUL"),
]  # fmt: skip

JSON_LINES = [
    Bad("a missing comma", third('{"text": "x" "label": 1}'), "invalid_json", 3, "column 14"),
    Bad("single quotes", third("{'text': 'x'}"), "invalid_json", 3, "double quotes"),
    Bad("a trailing comma", third('{"text": "x",}'), "invalid_json", 3, "at column"),
    Bad("cut off", third('{"text": "x'), "invalid_json", 3, "unterminated string"),
    Bad("two objects", third('{"text": "x"} {"text": "y"}'), "invalid_json", 3, "extra data"),
    Bad("a raw control", third('{"text": "a\tb", "label": "x"}'), "invalid_json", 3, "control"),
    Bad("NaN", third('{"text": "x", "label": NaN}'), "invalid_json", 3, "NaN"),
    Bad("Infinity", third('{"text": "x", "label": -Infinity}'), "invalid_json", 3, "Infinity"),
    Bad("a huge number", third('{"text": "x", "label": 1e999}'), "invalid_json", 3, "range"),
    Bad("half a pair", third('{"text": "\\ud83d", "label": "x"}'), "invalid_json", 3, "surrogate"),
    Bad("a comment", third("// the end"), "invalid_json", 3, "expecting value"),
    Bad("prose", third("and so on"), "invalid_json", 3, "expecting value"),
    Bad("a list", third('["x", "pos"]'), "not_an_object", 3, "a list"),
    Bad("a text", third('"x"'), "not_an_object", 3, "text"),
    Bad("a number", third("17"), "not_an_object", 3, "a number"),
    Bad("null", third("null"), "not_an_object", 3, "null"),
    Bad("deep lists", third('{"text": ' + "[" * 100_000), "json_too_deep", 3, "deeply"),
    Bad("deep objects", third('{"a":' * 100_000), "json_too_deep", 3, "deeply"),
    Bad("a key twice", third('{"text": "x", "text": "y", "label": "pos"}'), "duplicate_keys", 3,
        "`text`"),
    Bad("a key twice below", third('{"text": "x", "label": "pos", "m": {"a": 1, "a": 2}}'),
        "duplicate_keys", 3, "`a`"),
    Bad("no column", lines({"a": 1}, {"a": 2}), "missing_columns", None, "found `a`"),
    Bad("no label", third('{"text": "x"}'), "missing_value", 3, "column `label`"),
    Bad("null label", third('{"text": "x", "label": null}'), "missing_value", 3, "no value"),
    Bad("text is a number", third('{"text": 5, "label": "x"}'), "wrong_type", 3, "a number"),
    Bad("text is a list", third('{"text": ["x"], "label": "x"}'), "wrong_type", 3, "a list"),
    Bad("text is an object", third('{"text": {}, "label": "x"}'), "wrong_type", 3, "an object"),
    Bad("label is a fraction", third('{"text": "x", "label": 0.5}'), "wrong_type", 3, "`target`"),
    Bad("label is an object", third('{"text": "x", "label": {}}'), "wrong_type", 3, "an object"),
    Bad("empty text", third('{"text": "", "label": "x"}'), "empty_text", 3, "empty"),
    Bad("blank text", third('{"text": " \\u00a0", "label": "x"}'), "empty_text", 3, "empty"),
    Bad("a line without end", b'{"text": "' + b"x" * 5000, "line_too_long", 1, "line break",
        limits=SMALL),
    Bad("a long line later", third('{"text": "' + "x" * 5000 + '"}'), "line_too_long", 3, "1,000",
        limits=SMALL),
    Bad("one class", lines({"text": "x", "label": "a"}, {"text": "y", "label": "a"}), "one_class",
        None, "`a`"),
    Bad("unseen label", GOOD, "label_unseen", 1, "`pos`",
        options=(("role", "validation"), ("labels", ["neg", "new"]))),
    Bad("every row bad", b'{"text"\n{"text"\n', "invalid_json", 1, "1 more problem"),
]  # fmt: skip

DELIMITED = [
    Bad("a header alone", b"text,label\n", "no_rows", None, "no rows"),
    Bad("other columns", b"foo,bar\n1,2\n", "missing_columns", None, "`foo`, `bar`"),
    Bad("no label column", b"text,note\na,b\n", "missing_columns", None, '{"label": "'),
    Bad("no header", b"a fine film,pos\na dull film,neg\n", "missing_columns", None, "`pos`"),
    Bad("two candidates", b"review,comment,label\na,b,c\n", "ambiguous_columns", None, "`comment`"),
    Bad("numbers under target", b"text,target\na,1\nb,0\n", "ambiguous_columns", None, "amounts"),
    Bad("a column twice", b"text,text,label\na,b,c\n", "duplicate_columns", 1, "more than once"),
    Bad("too many columns", b"a,b,c,d,e,f\n1,2,3,4,5,6\n", "too_many_columns", 1, "6 columns",
        limits=FEW),
    Bad("a short row", TABLE + b"alone\n", "ragged_row", 4, "1 field where"),
    Bad("a long row", TABLE + b"one, two,pos\n", "ragged_row", 4, "3 fields"),
    Bad("an open quote", TABLE + b'"a,b\nc,d\n', "invalid_csv", 4, "write a quote twice"),
    Bad("text after a quote", TABLE + b'"a"x,b\n', "invalid_csv", 4, "expected after"),
    Bad("an open quote in a large file", TABLE + b'"a,b\n' + b"c,d\n" * 1000, "line_too_long", 4,
        "closing quote", limits=SMALL),
    Bad("an empty text", TABLE + b",pos\n", "empty_text", 4, "empty"),
    Bad("an empty label", TABLE + b"x,\n", "missing_value", 4, "no label"),
    Bad("a blank label", TABLE + b"x,  \n", "missing_value", 4, "no label"),
    Bad("words to predict", b"text,target,target_note\na,1.5,x\nb,much,y\n", "wrong_type", 3,
        "a number expected", options=(("column_mapping", {"target": "target"}),)),
    Bad("nothing to predict", b"text,score\na,nan\nb,1\n", "not_finite", 2, "not finite"),
    Bad("old line ends", b"text,label\rfine,pos\rdull,neg\r", "invalid_csv", 1, "new-line"),
    Bad("one class in TSV", b"text\tlabel\na\tx\nb\tx\n", "one_class", None, "`x`"),
    Bad("labels not a list", b'text,labels\na,"[""x"""\nb,[]\n', "invalid_json", 2,
        "not valid", options=(("column_mapping", {"labels": "labels"}),)),
]  # fmt: skip

DOCUMENTS = [
    Bad("an empty list", b"[]", "no_rows", None, "no rows"),
    Bad("an object without rows", b'{\n "meta": {"a": [1]},\n "n": 3\n}', "no_rows", None,
        "found meta, n"),
    Bad("a list cut off", LIST[:-20], "invalid_json", None, "line 1"),
    Bad("a list without end", LIST[:-1], "invalid_json", None, "','"),
    Bad("a missing comma in a list", LIST.replace("}, {", "} {"), "invalid_json", None, "','"),
    Bad("a trailing comma in a list", LIST[:-1] + ",]", "invalid_json", None, "expecting value"),
    Bad("more after the list", LIST + " []", "invalid_json", None, "nothing more"),
    Bad("a word in the list", LIST[:-1] + ', "x"]', "not_an_object", 3, "text"),
    Bad("NaN in the list", LIST[:-1] + ', {"text": NaN}]', "invalid_json", 3, "NaN"),
    Bad("a deep document", "[" * 200_000, "json_too_deep", None, "deeply"),
    Bad("a bad value in the list", LIST[:-1] + ', {"text": 3, "label": 1}]', "wrong_type", 3,
        "column `text`"),
    Bad("a long element", '[{"text": "' + "x" * 200_000, "line_too_long", None, "element",
        limits=SMALL),
    Bad("an error on a later line", '[\n{"text": "a"},\n{"text" "b"}\n]', "invalid_json", None,
        "line 3"),
]  # fmt: skip

PARQUETS = [
    Bad("the magic alone", b"PAR1", "invalid_parquet", None, "upload complete"),
    Bad("Parquet cut off", PARQUET[: len(PARQUET) // 2], "invalid_parquet", None, "Parquet"),
    Bad("Parquet with a lying footer", PARQUET[:-8] + b"\xff\xff\xff\x7fPAR1", "invalid_parquet",
        None, "Parquet"),
    Bad("Parquet with a broken page", PARQUET[:4] + b"\xff" * 40 + PARQUET[44:], "invalid_parquet",
        None, "Parquet"),
    Bad("Parquet of one class", parquet([{"text": "a", "label": "b"}]), "one_class", None, "`b`"),
    Bad("Parquet with other columns", parquet([{"a": 1}]), "missing_columns", None, "`a`"),
    Bad("Parquet with a null", parquet([{"text": "a", "label": "b"}, {"text": None, "label": "c"}]),
        "missing_value", 2, "row 2"),
    Bad("Parquet of numbers", parquet([{"text": 1, "label": "b"}]), "wrong_type", 1, "a number"),
    Bad("Parquet of bytes", parquet([{"text": b"x", "label": "b"}]), "wrong_type", 1, "bytes"),
    Bad("wide Parquet", parquet([{f"c{n}": n for n in range(6)}]), "too_many_columns", None, "6",
        limits=FEW),
]  # fmt: skip

PLAIN = [
    Bad("prose as classes", b"Once upon a time\nthere was\n", "missing_columns", None, "`text`"),
    Bad("prose cut by NULs", b"one\n" * 9 + b"\x00\n", "nul_byte", 10, "NUL", task="fill-mask"),
    Bad("prose in Latin-1", b"caf\xe9\n", "invalid_encoding", 1, "0xe9", task="fill-mask"),
    Bad("prose without lines", b"word " * 1000, "line_too_long", 1, "1,000", task="fill-mask",
        limits=SMALL),
    Bad("CoNLL with a word alone", b"EU B-ORG\nrejects O\n" * 20 + b"alone\n", "ragged_row", 41,
        "one field", task="token-classification"),
    Bad("CoNLL of one tag", b"EU O\nrejects O\n", "one_class", None, "`O`",
        task="token-classification"),
    Bad("CoNLL without sentences", b"EU B-ORG\nrejects O\n" * 100, "line_too_long", 1, "sentence",
        task="token-classification", limits=Limits(max_sentence_words=50)),
    Bad("zstd of nothing", zstd(b""), "empty_file", None, "empty"),
]  # fmt: skip

CASES = [*FILES, *ENCODINGS, *JSON_LINES, *DELIMITED, *DOCUMENTS, *PARQUETS, *PLAIN]
