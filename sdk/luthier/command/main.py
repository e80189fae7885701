"""The command's entry: its groups, and what each way of ending says and exits with.

Exit codes: 0 done or job succeeded, 1 failed, 2 usage, 3 job cancelled, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import textwrap

import click
import openai

from luthier.command.data import data
from luthier.command.files import files
from luthier.command.jobs import jobs
from luthier.command.models import models
from luthier.command.run import run
from luthier.command.session import console, printable
from luthier.command.tasks import tasks

FAILED = 1
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="luthier")
def cli() -> None:
    """Fine-tune models on your own machines: upload, train, watch, download the weights."""


for command in (run, data, files, jobs, models, tasks):
    cli.add_command(command)


def main() -> None:
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        complain("Interrupted.")
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, as `head` does; nothing is wrong, nothing to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except openai.APIConnectionError as error:
        complain(
            f"No answer from {error.request.url} ({error}). Is the service running there? "
            "Start one with `luthier-server up`, or name another with LUTHIER_BASE_URL."
        )
        code = FAILED
    except openai.APIError as error:
        complain(explain(error))
        code = FAILED
    except (openai.OpenAIError, OSError) as error:
        complain(str(error))
        code = FAILED
    sys.exit(code)


def explain(error: openai.APIError) -> str:
    """An API error as one paragraph: message, field, code, and the id to look for in logs."""
    body = error.body if isinstance(error.body, dict) else {}
    message = str(body.get("message") or error.message)
    status = getattr(error, "status_code", None)
    about = [
        f"param: {error.param}" if error.param else "",
        f"code: {error.code}" if error.code else "",
        f"status: {status}" if status else "",
        f"request: {request_id}" if (request_id := getattr(error, "request_id", None)) else "",
    ]
    return f"{message} ({', '.join(filter(None, about))})"


def complain(paragraph: str) -> None:
    stderr = console(stderr=True)
    text = f"Error: {printable(paragraph)}"
    if stderr.is_terminal:
        text = textwrap.fill(text, min(stderr.width, 100))
    stderr.print(text, style="red", soft_wrap=True)
