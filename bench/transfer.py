"""A large file up and down through the service, beside `sha256sum` and plain copying of the same.

All in one run, in turn, ROUNDS times: hash the file, copy it with `cp`, upload it as one form and
download it again. What goes up is hashed by the service while it is written; what comes down is
thrown away. Prints MB/s (medians), ratios, and the API process's memory before and at its peak.

    python -m bench.transfer [MEGABYTES] [ROUNDS]
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

MEGABYTE = 1000 * 1000
BLOCK = 1024 * 1024
BOUNDARY = "transfer"
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


def form_head(name: str) -> bytes:
    head = "\r\n--".join(
        [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data',
            f'{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"',
        ]
    )
    return f"{head}\r\n\r\n".encode()


class Service:
    """A running `luthier-server up` and its API's process."""

    def __init__(self, data_dir: Path, process: subprocess.Popen[bytes]) -> None:
        url = urlsplit((data_dir / "url").read_text().strip())
        self.address = url.hostname or "", url.port or 80
        self.key = (data_dir / "api_key").read_text().strip()
        children = psutil.Process(process.pid).children(recursive=True)
        self.api = next(child for child in children if "api" in child.cmdline())
        self.peak = 0

    def request(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(*self.address, timeout=600, blocksize=BLOCK)
        headers["Authorization"] = f"Bearer {self.key}"
        connection.request(method, path, body, headers)  # type: ignore[arg-type]
        answer = connection.getresponse()
        assert answer.status < 300, answer.read()
        return answer

    def upload(self, path: Path) -> str:
        head = form_head(path.name)

        def body() -> Iterator[bytes]:
            yield head
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    yield block
            yield TAIL

        size = len(head) + path.stat().st_size + len(TAIL)
        answer = self.request(
            "POST",
            "/v1/files",
            body(),
            **{
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                "Content-Length": str(size),
            },
        )
        return str(json.loads(answer.read())["id"])

    def download(self, file_id: str, size: int) -> None:
        answer = self.request("GET", f"/v1/files/{file_id}/content")
        buffer, read = bytearray(BLOCK), 0
        while count := answer.readinto(buffer):
            read += count
        assert read == size

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep the largest resident set of the API in `peak`, looked at every 20 ms."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.02):
                self.peak = max(self.peak, self.rss())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def rss(self) -> int:
        return int(self.api.memory_info().rss)


@contextmanager
def running(folder: Path) -> Iterator[Service]:
    command = [sys.executable, "-P", "-m", "server", "up", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (folder / "url").exists():
            assert process.poll() is None, "the service did not start"
            time.sleep(0.1)
        time.sleep(15)  # The standby trainer is imported by then.
        yield Service(folder, process)
    finally:
        process.terminate()
        process.wait()


def write(path: Path, megabytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MEGABYTE))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_round(service: Service, data: Path, copy: Path) -> Iterator[tuple[str, float]]:
    hashing, copying = ["sha256sum", str(data)], ["cp", str(data), str(copy)]
    yield "sha256sum", timed(lambda: subprocess.run(hashing, check=True, capture_output=True))
    yield "cp", timed(lambda: subprocess.run(copying, check=True))
    copy.unlink()
    made: list[str] = []
    yield "upload", timed(lambda: made.append(service.upload(data)))
    yield "download", timed(lambda: service.download(made[0], data.stat().st_size))
    service.request("DELETE", f"/v1/files/{made[0]}").read()


def measure(folder: Path, megabytes: int, rounds: int) -> None:
    data, copy = folder / "data.bin", folder / "copy.bin"
    write(data, megabytes)
    taken: dict[str, list[float]] = defaultdict(list)
    with running(folder / "service") as service:
        before = service.rss()
        with service.watched():
            for _ in range(rounds):
                for name, seconds in one_round(service, data, copy):
                    taken[name].append(seconds)
    speeds = {name: megabytes / statistics.median(times) for name, times in taken.items()}
    print(f"{megabytes:,} MB, medians of {rounds} rounds; load {os.getloadavg()[0]:.1f} at the end")
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
    for name, speed in speeds.items():
        ratios = "  ".join(
            f"{speed / speeds[other]:5.2f} of {other}"
            for other in ("sha256sum", "cp")
            if name in ("upload", "download")
        )
        print(f"{name:10} {speed:8.0f} MB/s  {ratios}")
    print(f"API's resident memory: {before / MEGABYTE:.0f} MB before, ", end="")
    print(f"{service.peak / MEGABYTE:.0f} MB at its peak")


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), megabytes, rounds)


if __name__ == "__main__":
    main()
