"""`client.models`: OpenAI's calls, and the weights themselves."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Unpack, cast
from urllib.parse import quote

import anyio
import anyio.to_thread
import httpx2
from openai import AsyncStream, RequestOptions, Stream
from openai._base_client import AsyncPaginator
from openai.pagination import AsyncPage, SyncPage
from openai.resources import AsyncModels as OpenAIAsyncModels
from openai.resources import Models as OpenAIModels

from luthier.downloads import INTERRUPTED, OnProgress, PartialFile, Tally
from luthier.requests import CallOptions, path, request_options
from luthier.types import ModelFile

FILES = "/models/{}/files"


def _file_request(model: str, part: PartialFile) -> tuple[str, RequestOptions]:
    return (
        path(FILES, model) + "/" + quote(part.file.path),
        {"headers": part.headers(), "timeout": httpx2.Timeout(60.0, connect=5.0)},
    )


def _partial_files(folder: str | os.PathLike[str], files: list[ModelFile]) -> list[PartialFile]:
    return [PartialFile(Path(folder), file) for file in files]


class Models(OpenAIModels):
    def files(self, model: str, **call: Unpack[CallOptions]) -> SyncPage[ModelFile]:
        """The files of a fine-tuned model, with their sizes and hashes."""
        return self._get_api_list(
            path(FILES, model),
            page=SyncPage[ModelFile],
            model=ModelFile,
            options=request_options(**call),
        )

    def download(
        self,
        model: str,
        folder: str | os.PathLike[str],
        *,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Fetch all of a model's files into `folder`, which is then a Hugging Face model.

        Files that are there with the right hash are left alone, half ones are continued. A file
        has its name only once it is whole and verified. Raises DownloadError.
        """
        parts = _partial_files(folder, self.files(model).data)
        tally = Tally(parts, on_progress)
        tally.report()
        for part in parts:
            if not part.finished:
                self._download_file(model, part, tally)
        return Path(folder)

    def _download_file(self, model: str, part: PartialFile, tally: Tally) -> None:
        with part:
            while not part.finished:
                try:
                    if not part.full:
                        self._fetch_rest(model, part, tally)
                    part.publish()
                except INTERRUPTED as error:
                    time.sleep(part.wait_after(error))

    def _fetch_rest(self, model: str, part: PartialFile, tally: Tally) -> None:
        url, options = _file_request(model, part)
        stream = self._get(
            url, cast_to=httpx2.Response, options=options, stream=True, stream_cls=Stream[bytes]
        )
        response = cast(httpx2.Response, stream)  # what `cast_to` asked for
        try:
            part.begin(response)
            for chunk in response.iter_bytes():
                part.write(chunk)
                tally.report()
        finally:
            response.close()
        part.end()


class AsyncModels(OpenAIAsyncModels):
    def files(
        self, model: str, **call: Unpack[CallOptions]
    ) -> AsyncPaginator[ModelFile, AsyncPage[ModelFile]]:
        """The files of a fine-tuned model, with their sizes and hashes."""
        return self._get_api_list(
            path(FILES, model),
            page=AsyncPage[ModelFile],
            model=ModelFile,
            options=request_options(**call),
        )

    async def download(
        self,
        model: str,
        folder: str | os.PathLike[str],
        *,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """As `Models.download`. Hashing, which takes the processor, happens in a thread."""
        files = (await self.files(model)).data
        parts = await anyio.to_thread.run_sync(_partial_files, folder, files)
        tally = Tally(parts, on_progress)
        tally.report()
        for part in parts:
            if not part.finished:
                await self._download_file(model, part, tally)
        return Path(folder)

    async def _download_file(self, model: str, part: PartialFile, tally: Tally) -> None:
        with part:
            while not part.finished:
                try:
                    if not part.full:
                        await self._fetch_rest(model, part, tally)
                    await anyio.to_thread.run_sync(part.publish)
                except INTERRUPTED as error:
                    await anyio.sleep(part.wait_after(error))

    async def _fetch_rest(self, model: str, part: PartialFile, tally: Tally) -> None:
        url, options = _file_request(model, part)
        stream = await self._get(
            url,
            cast_to=httpx2.Response,
            options=options,
            stream=True,
            stream_cls=AsyncStream[bytes],
        )
        response = cast(httpx2.Response, stream)  # what `cast_to` asked for
        try:
            part.begin(response)
            async for chunk in response.aiter_bytes():
                part.write(chunk)
                tally.report()
        finally:
            await response.aclose()
        part.end()
