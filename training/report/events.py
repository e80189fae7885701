"""The series as a TensorBoard event file, by TensorBoard's own writer."""

from __future__ import annotations

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from training.report.run import Run, read_records

FILE_VERSION = "brain.Event:2"
"""What the first record of every event file says."""


def name(run: Run) -> str:
    """TensorBoard reads files of a folder that are named so."""
    began = next((record["time"] for record in read_records(run.records)), 0)
    return f"events.out.tfevents.{int(began)}.{run.job_id}"


def write(run: Run, path: Path) -> None:
    """Scalars under the tags `train/loss`, `valid/accuracy` and so on."""
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for record in read_records(run.records):
            if not file.tell():
                head = Event(wall_time=record["time"], file_version=FILE_VERSION)
                writer.write(head.SerializeToString())
            scalars = [
                Summary.Value(tag=f"{record['split']}/{name}", simple_value=value)
                for name, value in record["values"].items()
                if value is not None
            ]
            event = Event(
                wall_time=record["time"], step=record["step"], summary=Summary(value=scalars)
            )
            writer.write(event.SerializeToString())
