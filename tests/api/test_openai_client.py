"""The unmodified `openai` package against a live server, sync and async, errors included."""

from __future__ import annotations

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.api.conftest import CSV, Live
from tests.api.rows import make_model

HYPERPARAMETERS = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 1.5}


def test_upload_create_follow_and_download(live: Live) -> None:
    client = live.openai()
    file = client.files.create(
        file=("reviews.csv", CSV),
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (file.bytes, file.filename, file.status) == (len(CSV), "reviews.csv", "uploaded")
    assert file.expires_at is not None
    assert 3590 <= file.expires_at - file.created_at <= 3601
    assert client.files.content(file.id).read() == CSV

    job = client.fine_tuning.jobs.create(
        model="all-MiniLM-L6-v2",
        training_file=file.id,
        validation_file=file.id,
        suffix="reviews",
        seed=7,
        metadata={"team": "search"},
        method={"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}},  # type: ignore[arg-type]
        extra_body={"task": "text-classification"},
    )
    assert isinstance(job, FineTuningJob)
    assert job.status == "validating_files"
    assert (job.training_file, job.validation_file, job.seed) == (file.id, file.id, 7)
    assert job.hyperparameters.model_dump() == HYPERPARAMETERS
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.n_epochs == 2
    assert job.error is None
    assert job.result_files == []
    assert job.metadata == {"team": "search"}
    assert job.model_extra is not None
    assert job.model_extra["task"] == "text-classification"
    assert client.fine_tuning.jobs.retrieve(job.id) == job

    events = client.fine_tuning.jobs.list_events(job.id)
    assert [event.message for event in events] == [
        f"Validating training file: {file.id}",
        f"Created fine-tuning job: {job.id}",
    ]
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_dpo_is_the_task_of_preferences(live: Live) -> None:
    client = live.openai()
    job = client.fine_tuning.jobs.create(
        model="all-MiniLM-L6-v2",
        training_file=live.upload(b"prompt,chosen,rejected\na,b,c\n"),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}},
    )
    assert job.method is not None
    assert (job.method.type, job.method.supervised) == ("dpo", None)
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.beta == 0.2
    assert job.method.dpo.hyperparameters.n_epochs == 2
    assert job.model_extra is not None
    assert job.model_extra["task"] == "preference"
    assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_cursors_walk_over_every_page(live: Live) -> None:
    client = live.openai()
    file_id = live.upload()
    made = [
        client.fine_tuning.jobs.create(
            model="all-MiniLM-L6-v2", training_file=file_id, metadata={"walk": "yes", "n": str(n)}
        ).id
        for n in range(5)
    ]
    found = client.fine_tuning.jobs.list(limit=2, metadata={"walk": "yes"})
    assert found.has_more
    assert [job.id for job in found] == made[::-1]
    one = client.fine_tuning.jobs.list(metadata={"walk": "yes", "n": "3"})
    assert [job.id for job in one] == [made[3]]

    events = client.fine_tuning.jobs.list_events(made[0], limit=1)
    assert events.has_more
    assert len(list(events)) == 2

    files = [live.upload(purpose="evals") for _ in range(3)]
    walked = client.files.list(purpose="evals", limit=2, order="asc")
    assert [file.id for file in walked] == files


def test_models_by_names_with_slashes_and_colons(live: Live) -> None:
    client = live.openai()
    model = make_model(live)
    checkpoint = make_model(live, suffix="ck", step=20)
    listed = {found.id: found for found in client.models.list()}
    assert listed["all-MiniLM-L6-v2"].owned_by == "base"
    assert listed[model.id].owned_by == live.project_id
    assert checkpoint.id not in listed

    assert client.models.retrieve(model.id).id == model.id
    assert client.models.retrieve(checkpoint.id).id == checkpoint.id
    alias = "sentence-transformers/all-MiniLM-L6-v2"
    assert client.models.retrieve(alias).id == "all-MiniLM-L6-v2"
    (listed_checkpoint,) = client.fine_tuning.jobs.checkpoints.list(checkpoint.job_id)
    assert listed_checkpoint.fine_tuned_model_checkpoint == checkpoint.id
    assert listed_checkpoint.step_number == 20
    assert listed_checkpoint.metrics.valid_loss == 0.5

    assert client.models.delete(model.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(model.id)
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("all-MiniLM-L6-v2")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("org/never-heard-of")
    assert unknown.value.param == "model"


def test_errors_have_the_types_that_clients_catch(live: Live) -> None:
    client = live.openai()
    with pytest.raises(openai.BadRequestError) as bad:
        client.fine_tuning.jobs.create(model="gpt-4o", training_file=live.upload())
    assert bad.value.code == "model_not_found"
    assert bad.value.param == "model"
    assert bad.value.type == "invalid_request_error"
    assert "all-MiniLM-L6-v2" in bad.value.message
    assert bad.value.request_id is not None
    assert bad.value.request_id.startswith("req-")

    with pytest.raises(openai.NotFoundError) as missing:
        client.fine_tuning.jobs.retrieve("ftjob-none")
    assert missing.value.code == "not_found"
    with pytest.raises(openai.AuthenticationError) as wrong:
        live.openai("lk-wrong").models.list()
    assert wrong.value.code == "invalid_api_key"

    job = client.fine_tuning.jobs.create(model="all-MiniLM-L6-v2", training_file=live.upload())
    client.fine_tuning.jobs.cancel(job.id)
    patient = client.with_options(max_retries=2)
    with pytest.raises(openai.ConflictError) as conflict:
        patient.fine_tuning.jobs.pause(job.id)
    assert conflict.value.code == "job_finished"
    assert conflict.value.response.headers["x-should-retry"] == "false"
    assert conflict.value.response.request.headers["x-stainless-retry-count"] == "0"

    def submit(seed: int) -> FineTuningJob:
        return client.fine_tuning.jobs.create(
            model="all-MiniLM-L6-v2",
            training_file=job.training_file,
            seed=seed,
            extra_headers={"Idempotency-Key": "once"},
        )

    submit(1)
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        submit(2)
    assert reused.value.code == "idempotency_key_reused"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_async_client(live: Live) -> None:
    async with live.async_openai() as client:
        file = await client.files.create(file=("reviews.csv", CSV), purpose="fine-tune")
        job = await client.fine_tuning.jobs.create(model="all-MiniLM-L6-v2", training_file=file.id)
        messages = [event.message async for event in client.fine_tuning.jobs.list_events(job.id)]
        assert len(messages) == 2
        assert (await client.files.content(file.id)).content == CSV
        assert (await client.fine_tuning.jobs.cancel(job.id)).status == "cancelled"
        with pytest.raises(openai.BadRequestError) as bad:
            await client.fine_tuning.jobs.create(
                model="all-MiniLM-L6-v2",
                training_file=file.id,
                hyperparameters={"n_epochs": 0},
            )
        assert bad.value.param == "hyperparameters.n_epochs"
        with pytest.raises(openai.ConflictError):
            await client.fine_tuning.jobs.resume(job.id)
