"""The doorbell: a Celery message that says "look at the queue". Postgres is the queue.

A ring carries nothing that matters, so it may be lost, late or doubled. It is sent after the
commit, with short time-outs, and a failure to send is logged and forgotten: the reconcilers ring
again for whatever waits.
"""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import OperationalError

from core.settings import Settings

CONTROL_QUEUE = "control"
VALIDATE = "validate"
PREDICT = "predict"
TRAIN = "train"

log = logging.getLogger(__name__)


def train_queue(requires: list[str]) -> str:
    """The queue that rings only the workers with these capabilities."""
    return ".".join([TRAIN, *sorted(requires)])


def make_celery(settings: Settings, *, socket_timeout: float) -> Celery:
    """A Celery app on the settings' broker: JSON alone, no results, early acknowledgement.

    `socket_timeout` bounds every call to the broker, in seconds; without it a frozen broker would
    block the caller for minutes.
    """
    app = Celery("luthier", broker=settings.require_redis_url(), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=CONTROL_QUEUE,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": min(socket_timeout, 2.0),
            "health_check_interval": 25,
        },
        timezone="UTC",
    )
    return app


class Doorbell:
    """Sends rings. Thread-safe; never raises for a broker that is away."""

    def __init__(self, settings: Settings) -> None:
        self._app = make_celery(settings, socket_timeout=settings.broker_timeout_seconds)
        # One try, at once: kombu's own default is to try again for seconds.
        self._app.conf.broker_transport_options |= {"max_retries": 0, "interval_start": 0}

    def validate(self, validation_id: str) -> bool:
        return self._ring(VALIDATE, CONTROL_QUEUE, [validation_id])

    def predict(self, prediction_id: str) -> bool:
        return self._ring(PREDICT, CONTROL_QUEUE, [prediction_id])

    def train(self, requires: list[str]) -> bool:
        return self._ring(TRAIN, train_queue(requires), [])

    def pending(self, queue: str) -> int:
        """Rings that no worker has taken yet. Raises OperationalError when the broker is away."""
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            with connection.channel() as channel:
                return int(channel._size(queue))

    def close(self) -> None:
        self._app.close()

    def _ring(self, task: str, queue: str, arguments: list[str]) -> bool:
        try:
            self._app.send_task(task, args=arguments, queue=queue, retry=False, ignore_result=True)
        except (OperationalError, OSError) as error:
            log.warning("ring %s not sent, the reconciler will ring again: %s", task, error)
            return False
        return True
