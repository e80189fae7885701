"""A large upload in parts whose process is killed halfway, and that goes on all the same."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from openai import OpenAI

from tests.conftest import Service

MEGABYTE = 1000 * 1000
SIZE, PART = 300 * MEGABYTE, 16 * MEGABYTE

UPLOADER = """
import hashlib, json, sys
from pathlib import Path
from openai import OpenAI

base_url, key, file, journal, part_size = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key=key)
data, journal, part_size = Path(file), Path(journal), int(part_size)
lines = journal.read_text().splitlines() if journal.exists() else []

def note(line):
    with journal.open("a") as out:
        print(line, file=out, flush=True)

if not lines:
    upload = client.uploads.create(
        bytes=data.stat().st_size, filename=data.name, mime_type="application/octet-stream",
        purpose="user_data",
    )
    lines = [upload.id]
    note(upload.id)
upload_id, parts = lines[0], lines[1:]
with data.open("rb") as stream:
    stream.seek(len(parts) * part_size)
    while piece := stream.read(part_size):
        part = client.uploads.parts.create(upload_id, data=piece)
        parts.append(part.id)
        note(part.id)
with data.open("rb") as stream:
    md5 = hashlib.file_digest(stream, "md5").hexdigest()
print(client.uploads.complete(upload_id, part_ids=parts, md5=md5).file.id)
"""


@pytest.mark.slow
def test_300_megabytes_in_parts_killed_halfway(service: Service, tmp_path: Path) -> None:
    """The stock package uploads; SIGKILL; another process sends what is missing and completes."""
    file, journal = tmp_path / "large.bin", tmp_path / "parts"
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for _ in range(SIZE // (4 * MEGABYTE)):
            block = os.urandom(4 * MEGABYTE)
            digest.update(block)
            out.write(block)
    command = [sys.executable, "-c", UPLOADER, service.base_url, service.key]
    command += [str(file), str(journal), str(PART)]
    with subprocess.Popen(command) as killed:
        while not journal.exists() or len(journal.read_text().splitlines()) < 10:
            assert killed.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    before = journal.read_text().splitlines()
    assert len(before) - 1 < SIZE / PART
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=250)
    after = journal.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) - 1 == -(-SIZE // PART)
    client = OpenAI(base_url=service.base_url, api_key=service.key)
    stored = client.files.retrieve(done.stdout.strip())
    assert (stored.bytes, stored.status) == (SIZE, "processed")
    content = hashlib.sha256()
    with client.files.with_streaming_response.content(stored.id) as answer:
        for chunk in answer.iter_bytes(MEGABYTE):
            content.update(chunk)
    assert content.hexdigest() == digest.hexdigest()
    client.files.delete(stored.id)
