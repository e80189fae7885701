"""Data that is named: the hub's datasets and an administrator's folders, and no way beyond them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from core.settings import Settings
from models.db import transaction
from tests.api import control
from tests.api.conftest import CSV, Live
from tests.api.hub import Hub, running_hub
from worker import sources
from worker.context import Context
from worker.validation import validate

REPO = "reviews/films"
HF = f"hf://datasets/{REPO}"


@pytest.fixture(scope="module")
def folder(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Registered as `shared`; a file beside it must never be read."""
    above = tmp_path_factory.mktemp("folders")
    (above / "secret.csv").write_bytes(CSV)
    made = above / "shared"
    (made / "films").mkdir(parents=True)
    (made / "films" / "train.csv").write_bytes(CSV)
    (made / "bad.csv").write_bytes(b"text,label\n,good\nx,bad\ny,good\n")
    (made / "film-link.csv").symlink_to(made / "films" / "train.csv")
    (made / "out.csv").symlink_to(above / "secret.csv")
    (made / "out").symlink_to(above)
    os.mkfifo(made / "pipe")
    live.settings.data_folders = {"shared": made}
    yield made
    live.settings.data_folders = {}


@pytest.fixture(scope="module")
def hub(live: Live) -> Iterator[Hub]:
    with running_hub() as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", made.url)
        patch.setenv("HF_TOKEN", "hf_secret")
        live.settings.hf_datasets = True
        yield made
    live.settings.hf_datasets = False


def parquet(start: int, rows: int) -> bytes:
    numbers = range(start, start + rows)
    columns = {"text": [f"film {n}" for n in numbers], "label": [f"{n % 2}" for n in numbers]}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def refused(live: Live, source: str) -> tuple[str | None, str]:
    """The code and message of a call that is refused at once."""
    with pytest.raises(openai.BadRequestError) as caught:
        live.openai().fine_tuning.jobs.create(model="all-MiniLM-L6-v2", training_file=source)
    assert caught.value.param == "training_file"
    return caught.value.code, caught.value.message


def estimate(live: Live, source: str) -> Any:
    body = {"model": "all-MiniLM-L6-v2", "training_file": source, "task": "text-classification"}
    with live.http() as http:
        return http.post("/fine_tuning/jobs/estimate", json=body).json()


class TestFolders:
    def test_a_job_on_a_registered_folders_file(self, live: Live, folder: Path) -> None:
        source = "folder://shared/films/train.csv"
        made = control.job(live, training_file=source, validation_file=source)
        assert made["status"] == "queued", made["error"]
        assert (made["resolved"]["train_rows"], made["resolved"]["valid_rows"]) == (2, 2)
        file = control.got(live, f"/files/{made['training_file']}")
        assert (file["status"], file["filename"], file["source"]) == (
            "processed",
            "train.csv",
            source,
        )
        assert live.openai().files.content(file["id"]).content == CSV
        assert len(set(live.store.keys("files"))) == 1  # equal content, once
        again = control.job(live, training_file=file["id"])
        assert again["status"] == "queued"

    def test_an_estimate_fetches_once(self, live: Live, folder: Path) -> None:
        """However often it is asked for; a bad source says nothing of another."""
        (folder / "fresh.csv").write_bytes(CSV + b"fresh,positive\n")
        bad, good = "folder://shared/nothing.csv", "folder://shared/fresh.csv"
        for source in (bad, good):
            waits = estimate(live, source)
            assert waits["error"]["code"] == "validation_pending", source
            validation_id = re.findall(r"ftval-\w+", waits["error"]["message"])[0]
            assert validation_id in estimate(live, source)["error"]["message"]
            control.ring(live, validation_id)
        assert estimate(live, good)["rows"] == 3
        # What was bad may have been mended: it is fetched anew.
        assert estimate(live, bad)["error"]["code"] == "validation_pending"

    def test_who_brings_it_too_late_writes_over_nothing(
        self, live: Live, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A control worker stands still with the bytes in its hands; meanwhile the file changes,
        and another one brings it and ends the check."""
        path, newer = folder / "changing.csv", b"text,label\nnewer,good\nnewest,bad\n"
        path.write_bytes(CSV)
        asked = {"training_file": f"folder://shared/{path.name}"}
        with live.http() as http:
            made = http.post("/fine_tuning/validations", json=asked).json()
        context, real = control.context_of(live), sources.bring
        brought: list[bytes] = []

        def bring(context: Context, text_: str, to: Path, *more: Any) -> None:
            real(context, text_, to, *more)
            brought.append(to.read_bytes())
            if len(brought) == 1:
                path.write_bytes(newer)
                with transaction(live.engine) as session:
                    session.execute(text("UPDATE validations SET lease_expires_at = now()"))
                validate(context, made["id"])

        monkeypatch.setattr(sources, "bring", bring)
        validate(context, made["id"])
        assert brought == [CSV, newer]
        found = control.got(live, f"/fine_tuning/validations/{made['id']}")
        assert found["status"] == "succeeded"
        assert live.openai().files.content(found["training_file"]).content == newer

    def test_what_is_wrong_in_it_is_told(self, live: Live, folder: Path) -> None:
        made = control.job(live, training_file="folder://shared/bad.csv")
        assert (made["status"], made["error"]["code"]) == ("failed", "empty_text")
        file = control.got(live, f"/files/{made['training_file']}")
        assert file["status"] == "error"
        assert "bad.csv line 2" in file["status_details"]

    @pytest.mark.parametrize(
        "path",
        ["none.csv", "films", "film-link.csv", "out.csv", "out/secret.csv", "pipe", "bad.csv/x"],
    )
    def test_no_links_no_folders_no_pipes(self, live: Live, folder: Path, path: str) -> None:
        made = control.job(live, training_file=f"folder://shared/{path}")
        assert (made["status"], made["error"]["code"]) == ("failed", "source_not_found")
        answer = content_refused(live, made["training_file"])
        assert answer == "file_not_there_yet"

    @pytest.mark.parametrize(
        "source",
        [
            "folder://shared/../secret.csv",
            "folder://shared/films/../../secret.csv",
            "folder://shared//etc/passwd",
            "folder:///etc/passwd",
            "folder://shared/",
            "folder://../shared/films",
            "folder://shared/a\nb",
            "folder://shared",
        ],
    )
    def test_no_way_out(self, live: Live, folder: Path, source: str) -> None:
        assert refused(live, source)[0] == "invalid_source"

    def test_unregistered_names(self, live: Live, folder: Path) -> None:
        code, message = refused(live, "folder://other/train.csv")
        assert code == "source_not_allowed"
        assert "registered: shared" in message


class TestHub:
    def test_shards_of_a_split_are_joined(self, live: Live, hub: Hub) -> None:
        hub.datasets[REPO, "main"] = {
            "data/train-00000-of-00002.parquet": parquet(0, 30),
            "data/train-00001-of-00002.parquet": parquet(30, 20),
            "data/test-00000-of-00001.parquet": parquet(50, 10),
            "films.py": b"raise SystemExit('never run')",
        }
        made = control.job(live, training_file=HF, validation_file=f"{HF}:test")
        assert made["status"] == "queued", made["error"]
        assert (made["resolved"]["train_rows"], made["resolved"]["valid_rows"]) == (50, 10)
        file = control.got(live, f"/files/{made['training_file']}")
        assert (file["source"], file["filename"]) == (HF, "films-train")
        assert not any("films.py" in path for path in hub.asked)
        assert not hub.tokens

    def test_configurations_and_revisions(self, live: Live, hub: Hub) -> None:
        hub.datasets[REPO, "main"] = {
            "de/train/0000.parquet": parquet(0, 6),
            "en/train/0000.parquet": parquet(0, 8),
        }
        hub.datasets[REPO, "v1"] = {"train.parquet": parquet(0, 10)}
        for source, rows in ((f"{HF}/de", 6), (f"{HF}/en:train", 8), (f"{HF}@v1", 10)):
            made = control.validation(live, training_file=source)
            assert made["status"] == "succeeded", made["error"]
            assert made["training"]["rows"] == rows
        for source, code, told in (
            (HF, "source_ambiguous", "de, en"),
            (f"{HF}/fr", "source_not_found", "de/train/0000.parquet"),
            (f"{HF}/de:test", "source_not_found", "'test'"),
            (f"{HF}@v2", "source_not_found", "@v2"),
            ("hf://datasets/reviews/none", "source_not_found", "reviews/none"),
        ):
            error = control.validation(live, training_file=source)["error"]
            assert error["code"] == code
            assert told in error["message"]

    def test_the_hubs_own_conversion(self, live: Live, hub: Hub) -> None:
        hub.datasets[REPO, "main"] = {"films.py": b"", "weights.pkl": b"\x80\x04."}
        hub.datasets[REPO, "refs/convert/parquet"] = {"default/train/0000.parquet": parquet(0, 12)}
        assert control.validation(live, training_file=HF)["training"]["rows"] == 12
        del hub.datasets[REPO, "refs/convert/parquet"]
        error = control.validation(live, training_file=HF)["error"]
        assert error["code"] == "source_not_found"
        assert not any("pkl" in path for path in hub.asked)

    def test_one_file_of_another_format(self, live: Live, hub: Hub) -> None:
        hub.datasets[REPO, "main"] = {"train.csv": CSV, "README.md": b"# Films"}
        assert control.validation(live, training_file=HF)["training"]["rows"] == 2
        hub.datasets[REPO, "main"] = {"train-1.csv": CSV, "train-2.csv": CSV}
        error = control.validation(live, training_file=HF)["error"]
        assert error["code"] == "source_unreadable"

    def test_more_than_the_server_takes(self, live: Live, hub: Hub) -> None:
        hub.datasets[REPO, "main"] = {"train.csv": bytes(live.settings.max_upload_bytes + 1)}
        asked = len(hub.asked)
        error = control.validation(live, training_file=HF)["error"]
        assert error["code"] == "source_too_large"
        assert not any("train.csv" in path for path in hub.asked[asked:])

    def test_shards_that_do_not_go_together(self, live: Live, hub: Hub) -> None:
        other = io.BytesIO()
        pq.write_table(pa.table({"x": [1]}), other)
        hub.datasets[REPO, "main"] = {
            "train-0.parquet": parquet(0, 5),
            "train-1.parquet": other.getvalue(),
        }
        error = control.validation(live, training_file=HF)["error"]
        assert error["code"] == "source_unreadable"

    def test_a_hub_that_is_away_is_waited_for(
        self, live: Live, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.datasets[REPO, "main"] = {"train.csv": CSV}
        with monkeypatch.context() as patch:
            patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
            made = control.job(live, training_file=HF)
        assert made["status"] == "validating_files"
        with transaction(live.engine) as session:
            session.execute(text("UPDATE validations SET not_before = NULL"))
        assert control.admitted(live, made["id"])["status"] == "queued"

    @pytest.mark.parametrize(
        "source",
        [
            "hf://datasets/films",
            "hf://reviews/films",
            "hf://datasets/../films",
            "hf://datasets/a/b/../c",
            "hf://datasets/a/b@x y",
        ],
    )
    def test_names_that_cannot_be_meant(self, live: Live, hub: Hub, source: str) -> None:
        assert refused(live, source)[0] == "invalid_source"


def test_nothing_is_open_by_default(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, default in (("hf_datasets", False), ("data_folders", {})):
        assert Settings.model_fields[name].get_default(call_default_factory=True) == default
        monkeypatch.setattr(live.settings, name, default)
    for source in (HF, "folder://shared/films/train.csv"):
        assert refused(live, source)[0] == "source_not_allowed"


def test_folders_are_registered_by_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_DATA_FOLDERS", "shared=/data/shared, speech=/mnt/speech")
    assert Settings().data_folders == {
        "shared": Path("/data/shared"),
        "speech": Path("/mnt/speech"),
    }
    monkeypatch.setenv("LUTHIER_DATA_FOLDERS", "/data/shared")
    with pytest.raises(ValueError, match="NAME=/path"):
        Settings()


def content_refused(live: Live, file_id: str) -> str:
    """The code with which a file's content is refused."""
    with live.http() as http:
        answer = http.get(f"/files/{file_id}/content")
    assert answer.status_code == 409
    return str(answer.json()["error"]["code"])
