"""Equal content lies in storage once a project, and goes with the last file that it is of."""

from __future__ import annotations

import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text

from models import removal
from models.db import transaction
from models.files import File
from tests.api import control
from tests.api.conftest import Live
from worker.reconcilers import clean, orphans


def objects(live: Live) -> set[str]:
    return set(live.store.keys("files"))


def keys_of(live: Live, *file_ids: str) -> set[str]:
    with transaction(live.engine) as session:
        return set(session.scalars(select(File.storage_key).where(File.id.in_(file_ids))))


@pytest.fixture(autouse=True)
def _all_objects_have_rows(live: Live) -> None:
    """At the start of each test, nothing is left over of the one before."""
    with live.http() as http:
        for file in http.get("/files").json()["data"]:
            http.delete(f"/files/{file['id']}")
    clean.reconcile(control.context_of(live))
    assert not objects(live)


def test_two_uploads_share_one_object_until_both_are_gone(live: Live) -> None:
    content = os.urandom(50_000)
    first, second = (live.upload(content, purpose="user_data") for _ in range(2))
    assert len(objects(live)) == len(keys_of(live, first, second)) == 1
    context = control.context_of(live)
    with live.http() as http:
        for gone, kept in ((first, second), (second, None)):
            assert http.delete(f"/files/{gone}").is_success
            clean.reconcile(context)
            clean.reconcile(context)
            assert http.get(f"/files/{gone}/content").status_code == 404
            if kept is not None:
                assert http.get(f"/files/{kept}/content").content == content
    assert not objects(live)


def test_one_that_expires_leaves_the_other_its_bytes(live: Live) -> None:
    content = os.urandom(1000)
    first, second = (live.upload(content, purpose="user_data") for _ in range(2))
    with transaction(live.engine) as session:
        session.execute(
            text("UPDATE files SET expires_at = now() - interval '1 s' WHERE id = :id"),
            {"id": first},
        )
    clean.reconcile(control.context_of(live))
    context = control.context_of(live)
    kept, context.settings.orphan_seconds = context.settings.orphan_seconds, -1.0
    orphans.reconcile(context)
    context.settings.orphan_seconds = kept
    with live.http() as http:
        assert http.get(f"/files/{second}/content").content == content


def test_an_upload_in_parts_shares_too(live: Live) -> None:
    content = os.urandom(100_000)
    client = live.openai()
    file_id = live.upload(content, purpose="user_data")
    begun = client.uploads.create(
        bytes=len(content), filename="x", mime_type="text/csv", purpose="user_data"
    )
    part = client.uploads.parts.create(begun.id, data=content)
    done = client.uploads.complete(begun.id, part_ids=[part.id])
    assert done.file is not None
    assert len(objects(live)) == len(keys_of(live, file_id, done.file.id)) == 1
    assert client.files.content(done.file.id).content == content


def test_projects_share_nothing(live: Live) -> None:
    content = os.urandom(1000)
    mine = live.upload(content, purpose="user_data")
    theirs = live.upload(content, purpose="user_data", key=live.stranger_key)
    assert keys_of(live, mine).isdisjoint(keys_of(live, theirs))
    assert len(objects(live)) == 2
    with live.http(live.stranger_key) as http:
        assert http.delete(f"/files/{theirs}").is_success
    clean.reconcile(control.context_of(live))
    with live.http() as http:
        assert http.get(f"/files/{mine}/content").content == content


def test_uploading_deleting_and_cleaning_at_once(live: Live) -> None:
    """Whatever meets whatever: a file that is there has its bytes, and none are left without."""
    content = [os.urandom(4000) for _ in range(2)]
    context = control.context_of(live)

    def user(seed: int) -> None:
        dice = random.Random(seed)
        mine: dict[str, bytes] = {}
        with live.http() as http:
            for _ in range(12):
                if mine and dice.random() < 0.5:
                    gone = dice.choice(list(mine))
                    del mine[gone]
                    assert http.delete(f"/files/{gone}").is_success
                else:
                    chosen = dice.choice(content)
                    mine[live.upload(chosen, purpose="user_data")] = chosen
                for file_id, expected in mine.items():
                    answer = http.get(f"/files/{file_id}/content")
                    assert answer.content == expected, answer.text[:200]
            for file_id in mine:
                assert http.delete(f"/files/{file_id}").is_success

    def cleaner(_: int) -> None:
        for _ in range(30):
            clean.reconcile(context)

    with ThreadPoolExecutor(8) as pool:
        under_way = [pool.submit(user, seed) for seed in range(5)]
        under_way += [pool.submit(cleaner, number) for number in range(3)]
        for one in under_way:
            one.result()
    clean.reconcile(context)
    assert not objects(live)


def test_an_upload_waits_for_a_cleaning_under_way(live: Live) -> None:
    """Or it would share bytes that are about to go."""
    content = os.urandom(1000)
    file_id = live.upload(content, purpose="user_data")
    with live.http() as http:
        http.delete(f"/files/{file_id}")
    with ThreadPoolExecutor(1) as pool:
        with transaction(live.engine) as session:
            key = removal.release_bytes(session, file_id)
            again = pool.submit(live.upload, content, "user_data")
            with pytest.raises(TimeoutError):
                again.result(timeout=1)
        assert key is not None
        live.store.delete(key)
        with live.http() as http:
            assert http.get(f"/files/{again.result(30)}/content").content == content


def test_what_a_cut_off_cleaning_leaves_is_an_orphan(live: Live) -> None:
    """Killed after the note that a file's bytes may go, before they went; uploaded anew then."""
    content = os.urandom(1000)
    file_id = live.upload(content, purpose="user_data")
    (left,) = keys_of(live, file_id)
    with live.http() as http:
        http.delete(f"/files/{file_id}")
    context = control.context_of(live)
    with transaction(live.engine) as session:
        assert removal.release_bytes(session, file_id) == left
    again = live.upload(content, purpose="user_data")
    assert keys_of(live, again) != {left}
    kept, context.settings.orphan_seconds = context.settings.orphan_seconds, -1.0
    orphans.reconcile(context)
    context.settings.orphan_seconds = kept
    assert objects(live) == keys_of(live, again)
    with live.http() as http:
        digest = hashlib.sha256(http.get(f"/files/{again}/content").content).hexdigest()
    assert digest == hashlib.sha256(content).hexdigest()
