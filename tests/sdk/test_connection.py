"""Which service and which key a client takes without being told."""

from __future__ import annotations

from pathlib import Path

import pytest
from luthier import AsyncLuthier, Luthier, NoConnection, connection


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LUTHIER_BASE_URL", "LUTHIER_API_KEY", "LUTHIER_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://another.example/v1")


def write_data_dir(folder: Path, url: str | None = "http://127.0.0.1:9000\n") -> None:
    folder.mkdir()
    (folder / "api_key").write_text("local-key\n")
    if url:
        (folder / "url").write_text(url)


def test_the_local_service_of_this_folder(tmp_path: Path) -> None:
    write_data_dir(tmp_path / "luthier-data")
    assert connection.find() == ("http://127.0.0.1:9000/v1", "local-key")
    client = Luthier()
    assert (str(client.base_url), client.api_key) == ("http://127.0.0.1:9000/v1/", "local-key")
    twin = AsyncLuthier()
    assert (str(twin.base_url), twin.api_key) == ("http://127.0.0.1:9000/v1/", "local-key")


def test_a_named_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_dir(tmp_path / "elsewhere", url=None)
    monkeypatch.setenv("LUTHIER_DATA_DIR", str(tmp_path / "elsewhere"))
    assert connection.find() == ("http://127.0.0.1:8000/v1", "local-key")


def test_variables_come_before_the_folder_and_arguments_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data_dir(tmp_path / "luthier-data")
    monkeypatch.setenv("LUTHIER_BASE_URL", "https://tune.example/v1")
    monkeypatch.setenv("LUTHIER_API_KEY", "variable-key")
    assert connection.find() == ("https://tune.example/v1", "variable-key")
    assert connection.find("http://other:1/v1", "given") == ("http://other:1/v1", "given")


def test_the_local_key_is_not_sent_to_another_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data_dir(tmp_path / "luthier-data")
    with pytest.raises(NoConnection, match=r"belongs to http://127.0.0.1:9000/v1"):
        Luthier(base_url="https://tune.example/v1")
    monkeypatch.setenv("LUTHIER_BASE_URL", "http://127.0.0.1:9001/v1")
    with pytest.raises(NoConnection, match="LUTHIER_API_KEY"):
        AsyncLuthier()
    # The same service by its other name is the same service.
    assert connection.find("http://localhost:9000").api_key == "local-key"


def test_without_a_key_the_error_says_where_it_was_looked_for() -> None:
    with pytest.raises(NoConnection, match=r"luthier-data/api_key does not exist.*luthier-server"):
        Luthier()


def test_options_of_the_openai_client_are_kept() -> None:
    client = Luthier(base_url="http://x:1/v1", api_key="k", max_retries=7, timeout=3.0)
    again = client.with_options(timeout=9.0)
    assert isinstance(again, Luthier)
    assert (again.max_retries, again.timeout, again.api_key) == (7, 9.0, "k")
