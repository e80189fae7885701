"""What a model says, kept as it was said as far as the database can."""

from __future__ import annotations

from models import predictions
from models.db import Engine, transaction
from models.predictions import Prediction, PredictionRequest
from tests.rows import make_project


def test_a_model_may_write_what_the_database_cannot_hold(engine: Engine) -> None:
    """Else its prediction would be tried again and never end."""
    asked = PredictionRequest(model="ft:writes-bytes", input="x")
    with transaction(engine) as session:
        made = predictions.create(session, make_project(engine), asked)
        held = predictions.claim(session, made.id, 30)
        assert held is not None
    with transaction(engine) as session:
        output = {"result": {"text": "one\0two"}}
        predictions.end(session, held.id, held.fence, output=output, error=None)
    with transaction(engine) as session:
        row = session.get_one(Prediction, held.id)
        assert (row.status, row.output) == ("succeeded", {"result": {"text": "one\ufffdtwo"}})
