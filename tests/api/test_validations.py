"""Validations as things of their own, and the status that they give to files."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from datetime import UTC, datetime

import openai
import pytest
from PIL import Image
from sqlalchemy import func, select, text

from models import removal
from models.db import transaction
from models.validations import Validation
from tests.api import control
from tests.api.conftest import Live
from tests.api.rows import csv
from worker.reconcilers import orphans

TASK = "text-classification"


def count(live: Live, file_id: str) -> int:
    """Validations that began with this file."""
    with transaction(live.engine) as session:
        statement = select(func.count()).where(Validation.training_file_id == file_id)
        return session.scalars(statement).one()


class TestFileStatus:
    def test_a_good_file_is_processed(self, live: Live) -> None:
        client = live.openai()
        file = client.files.create(file=("a.csv", csv("status")), purpose="fine-tune")
        assert file.status == "uploaded"
        worker = threading.Timer(0.5, control.check_file, [live, file.id])
        worker.start()
        done = client.files.wait_for_processing(file.id, poll_interval=0.1, max_wait_seconds=60)
        worker.join()
        assert (done.status, done.status_details) == ("processed", None)
        assert done.model_extra is not None
        check = control.got(live, f"/fine_tuning/validations/{done.model_extra['validation']}")
        assert (check["status"], check["automatic"], check["task"]) == ("succeeded", True, TASK)
        assert (check["training"]["rows"], check["training"]["labels"]) == (8, ["bad", "good"])

    def test_a_bad_file_says_where_and_what_to_do(self, live: Live) -> None:
        file_id = live.upload(b"text,label\nfine,good\n,bad\nalso,bad\n")
        control.check_file(live, file_id)
        file = live.openai().files.retrieve(file_id)
        assert file.status == "error"
        assert file.status_details is not None
        assert "train.csv line 3, column `text`" in file.status_details
        assert "leave the row out" in file.status_details

    def test_a_file_of_unknown_task_is_processed_when_it_parses(self, live: Live) -> None:
        columns = live.upload(b"alpha,beta\n1,2\n3,4\n")
        broken = live.upload(b"\x89PNG\r\n\x1a\n" + bytes(100))
        control.check_file(live, columns, broken)
        for file_id, status in ((columns, "processed"), (broken, "error")):
            assert live.openai().files.retrieve(file_id).status == status
        refused = control.job(live, training_file=columns)
        assert (refused["status"], refused["error"]["code"]) == ("failed", "task_ambiguous")

    def test_the_task_of_an_archive_is_told_from_its_layout(self, live: Live) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in ("cats/1.png", "dogs/2.png"):
                image = io.BytesIO()
                Image.new("RGB", (32, 32)).save(image, "PNG")
                archive.writestr(name, image.getvalue())
        file_id = live.upload(packed.getvalue())
        control.check_file(live, file_id)
        file = control.got(live, f"/files/{file_id}")
        check = control.got(live, f"/fine_tuning/validations/{file['validation']}")
        assert (file["status"], check["task"]) == ("processed", "image-classification")

    def test_files_for_other_purposes_are_not_looked_at(self, live: Live) -> None:
        file = live.openai().files.create(file=("a.bin", b"\0" * 9), purpose="user_data")
        assert file.status == "processed"
        assert count(live, file.id) == 0


class TestJobsAndBadFiles:
    BAD = b"text,label\nfine,good\n,bad\n" + b"\n".join(b"film %d,bad" % n for n in range(60))

    def test_a_file_with_errors_needs_something_that_mends_it(self, live: Live) -> None:
        file_id = live.upload(self.BAD)
        control.check_file(live, file_id)
        with pytest.raises(openai.BadRequestError, match="line 3") as caught:
            live.openai().fine_tuning.jobs.create(model="all-MiniLM-L6-v2", training_file=file_id)
        assert (caught.value.code, caught.value.param) == ("file_with_errors", "training_file")
        mended = control.job(live, training_file=file_id, skip_invalid=0.05)
        assert mended["status"] == "queued"
        assert mended["resolved"]["train_rows"] == 61
        still = control.job(live, training_file=file_id, task=TASK)
        assert (still["status"], still["error"]["code"]) == ("failed", "empty_text")

    def test_a_file_still_unchecked_is_taken(self, live: Live) -> None:
        file_id = live.upload(self.BAD + b"\nmore,bad\n")
        failed = control.job(live, training_file=file_id)
        assert failed["status"] == "failed"
        told = control.got(live, f"/fine_tuning/jobs/{failed['id']}/events")["data"]
        assert any("train.csv line 3" in event["message"] for event in told)

    def test_validation_data_may_be_of_one_class(self, live: Live) -> None:
        train, valid = live.upload(csv("two")), live.upload(b"text,label\none,good\ntwo,good\n")
        control.check_file(live, valid)
        assert live.openai().files.retrieve(valid).status == "error"
        made = control.job(live, training_file=train, validation_file=valid)
        assert made["status"] == "queued"
        with pytest.raises(openai.BadRequestError):
            live.openai().fine_tuning.jobs.create(model="all-MiniLM-L6-v2", training_file=valid)


class TestReuse:
    def test_a_job_takes_the_check_of_the_upload(self, live: Live) -> None:
        file_id = live.upload(csv("reuse"))
        control.check_file(live, file_id)
        check = control.got(live, f"/files/{file_id}")["validation"]
        for asked in ({}, {"task": TASK}, {"task": TASK, "seed": 3}):
            made = control.job(live, training_file=file_id, **asked)
            assert (made["status"], made["validation"]) == ("queued", check)
        again = live.upload(csv("reuse"))
        file = control.got(live, f"/files/{again}")
        assert (file["status"], file["validation"]) == ("processed", check)
        assert control.job(live, training_file=again)["validation"] == check
        assert (count(live, file_id), count(live, again)) == (1, 0)
        path = f"/fine_tuning/jobs/{made['id']}/validation"
        assert control.got(live, path)["id"] == check

    def test_a_job_waits_for_the_check_that_goes_on(self, live: Live) -> None:
        file_id = live.upload(csv("pending"))
        made = control.job(live, training_file=file_id, task=TASK)
        assert made["status"] == "queued"
        assert count(live, file_id) == 1

    def test_other_choices_are_another_check(self, live: Live) -> None:
        file_id = live.upload(csv("choices"))
        control.check_file(live, file_id)
        first = control.got(live, f"/files/{file_id}")["validation"]
        for asked in (
            {"column_mapping": {"text": "text"}},
            {"skip_invalid": 0.01},
            {"cleaning": {"trim": True}},
            {"validation_file": file_id},
        ):
            made = control.job(live, training_file=file_id, **asked)
            assert made["status"] == "queued"
            assert made["validation"] != first

    def test_a_job_for_another_task_goes_on_to_a_check_of_its_own(self, live: Live) -> None:
        """The upload's check takes it for classification while the job is waiting for it."""
        file_id = live.upload(csv("other task"))
        check = control.got(live, f"/files/{file_id}")["validation"]
        made = control.job(live, training_file=file_id, task="fill-mask")
        assert (made["status"], made["resolved"]["task"]) == ("queued", "fill-mask")
        assert made["validation"] != check
        assert (
            control.got(live, f"/fine_tuning/jobs/{made['id']}/validation")["task"] == "fill-mask"
        )

    def test_a_job_on_chats_keeps_the_day_that_it_was_made(self, live: Live) -> None:
        """Which templates that write the date take for today, in every attempt."""
        chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        file_id = live.upload(json.dumps({"messages": chat}).encode() + b"\n")
        made = control.job(live, training_file=file_id, task="text-generation")
        assert made["status"] == "queued", made
        day = datetime.fromtimestamp(made["created_at"], UTC).date().isoformat()
        assert made["resolved"]["day"] == day

    def test_data_that_is_kept_no_longer_is_prepared_anew(self, live: Live) -> None:
        """The file is deleted, and its data cleaned, between submission and admission."""
        file_id = live.upload(csv("gone"))
        control.check_file(live, file_id)
        check = control.got(live, f"/files/{file_id}")["validation"]
        with live.http() as http:
            asked = {"model": "all-MiniLM-L6-v2", "training_file": file_id}
            job_id = http.post("/fine_tuning/jobs", json=asked).json()["id"]
            assert http.delete(f"/files/{file_id}").is_success
        context = control.context_of(live)
        context.settings.orphan_seconds, kept = -1.0, context.settings.orphan_seconds
        orphans.reconcile(context)
        context.settings.orphan_seconds = kept
        made = control.admitted(live, job_id)
        assert (made["status"], made["validation"] != check) == ("queued", True)
        with transaction(live.engine) as session:
            found = session.get_one(Validation, made["validation"])
            assert live.store.size(str(found.train_key)) > 0
            assert file_id not in removal.files_due(session)

    def test_nothing_is_shared_between_projects(self, live: Live) -> None:
        content = csv("projects")
        mine = live.upload(content)
        control.check_file(live, mine)
        theirs = live.upload(content, key=live.stranger_key)
        with live.http(live.stranger_key) as http:
            file = http.get(f"/files/{theirs}").json()
        assert file["status"] == "uploaded"
        assert file["validation"] != control.got(live, f"/files/{mine}")["validation"]


class TestAsked:
    def test_with_a_validation_file_and_a_model(self, live: Live) -> None:
        train, valid = live.upload(csv("train", 12)), live.upload(csv("train", 4))
        done = control.validation(
            live, training_file=train, validation_file=valid, model="all-MiniLM-L6-v2", task=TASK
        )
        assert done["status"] == "succeeded"
        assert (done["training"]["rows"], done["validation"]["rows"]) == (12, 4)
        findings = {finding["code"] for finding in done["validation"]["report"]["findings"]}
        assert "leakage" in findings
        profile = done["training"]["report"]["profile"]
        assert profile["tokens"]["tokens"]["max"] >= 3
        assert profile["seen"]
        assert done["started_at"] >= done["created_at"]
        assert done["finished_at"] >= done["started_at"]
        listed = control.got(live, "/fine_tuning/validations?limit=1")
        assert (listed["first_id"], listed["has_more"]) == (done["id"], True)
        after = control.got(live, f"/fine_tuning/validations?after={done['id']}")
        assert done["id"] not in [row["id"] for row in after["data"]]

    def test_what_is_wrong_is_told_with_all_its_places(self, live: Live) -> None:
        file_id = live.upload(b"text,label\n,good\n,bad\nfine,good\ndull,bad\n")
        done = control.validation(live, training_file=file_id, task=TASK)
        assert (done["status"], done["training"]) == ("failed", None)
        error = done["error"]
        assert (error["code"], error["param"]) == ("empty_text", "training_file")
        places = [(place["line"], place["column"]) for place in error["details"]]
        assert places == [(2, "text"), (3, "text")]

    def test_a_nul_in_a_column_name_is_shown_otherwise(self, live: Live) -> None:
        rows = [{"text": f"nul {n}", "label": "ab"[n % 2], "x\0y": n} for n in range(4)]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        done = control.validation(live, training_file=live.upload(content.encode()))
        assert done["status"] == "succeeded"
        assert done["training"]["report"]["ignored_columns"] == ["x\ufffdy"]

    def test_a_task_that_cannot_be_trained_yet_can_be_checked(self, live: Live) -> None:
        file_id = live.upload(b'{"image": "x"}\n')
        done = control.validation(live, training_file=file_id, task="text-to-speech")
        assert done["error"]["code"] == "unsupported_format"

    def test_skipped_rows_are_a_file(self, live: Live) -> None:
        rows = [f"film {n},{'good' if n % 2 else 'bad'}" for n in range(60)]
        file_id = live.upload(("text,label\n" + "\n".join(rows) + "\n,good\nx,\n").encode())
        made = control.job(live, training_file=file_id, task=TASK, skip_invalid=0.05)
        assert made["resolved"]["skip_invalid"] == 0.05
        (result,) = made["result_files"]
        checked = control.got(live, f"/fine_tuning/jobs/{made['id']}/validation")["training"]
        assert checked["skipped_file"] == result
        assert (checked["rows"], checked["report"]["skipped"]["rows"]) == (60, 2)
        content = live.openai().files.content(result).text
        assert [json.loads(line)["line"] for line in content.splitlines()] == [62, 63]
        refused = control.job(live, training_file=file_id, task=TASK, skip_invalid=0.01)
        assert refused["status"] == "failed"

    def test_cleaning_is_counted_and_a_split_validates(self, live: Live) -> None:
        rows = [f" film {n % 40} ,{'good' if n % 2 else 'bad'}" for n in range(50)]
        file_id = live.upload(("text,label\n" + "\n".join(rows) + "\n").encode())
        cleaning = {"trim": True, "dedupe": True, "split": 0.25, "seed": 1}
        made = control.job(live, training_file=file_id, task=TASK, cleaning=cleaning)
        assert made["status"] == "queued", made["error"]
        resolved = made["resolved"]
        assert (resolved["train_rows"], resolved["valid_rows"]) == (30, 10)
        assert resolved["metric"] == "accuracy"
        assert resolved["cleaning"] == {"normalize": None, "balance": None} | cleaning
        checked = control.got(live, f"/fine_tuning/jobs/{made['id']}/validation")
        counts = checked["training"]["report"]["cleaning"]
        assert (counts["trimmed"], counts["duplicates_left_out"], counts["split_off"]) == (
            50,
            10,
            10,
        )
        assert checked["validation"]["rows"] == 10

    def test_a_split_beside_a_validation_file_is_refused(self, live: Live) -> None:
        file_id = live.upload(csv("refused"))
        with live.http() as http:
            asked = {
                "training_file": file_id,
                "validation_file": file_id,
                "cleaning": {"split": 0.1},
            }
            answer = http.post("/fine_tuning/validations", json=asked)
        assert answer.status_code == 400
        assert "cleaning.split" in answer.json()["error"]["message"]

    @pytest.mark.parametrize(
        ("asked", "param", "code"),
        [
            ({"task": "text-clasification"}, "task", "unknown_task"),
            ({"skip_invalid": 0.06}, "skip_invalid", None),
            ({"cleaning": {"split": 0.6}}, "cleaning.split", None),
            ({"cleaning": {"tirm": True}}, "cleaning.tirm", "unknown_parameter"),
            ({"model": "no-such-model"}, "model", "model_not_found"),
        ],
    )
    def test_bad_requests(
        self, live: Live, asked: dict[str, object], param: str, code: str | None
    ) -> None:
        body = {"training_file": live.upload(csv("bad"))} | asked
        with live.http() as http:
            answer = http.post("/fine_tuning/validations", json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == param
        assert code in (None, error["code"])


def test_a_job_of_the_release_before_gets_a_validation(live: Live) -> None:
    file_id = live.upload(csv("adopted"))
    with live.http() as http:
        asked = {"model": "all-MiniLM-L6-v2", "training_file": file_id}
        job_id = http.post("/fine_tuning/jobs", json=asked).json()["id"]
    with transaction(live.engine) as session:
        session.execute(text("UPDATE jobs SET validation_id = NULL WHERE id = :id"), {"id": job_id})
    with live.http() as http:
        assert http.get(f"/fine_tuning/jobs/{job_id}/validation").status_code == 404
    assert control.admitted(live, job_id)["status"] == "queued"
