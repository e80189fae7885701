"""Which trackers a job may report to: what the administrator has set up, and nothing else."""

from __future__ import annotations

from core.errors import InvalidRequest
from core.settings import Settings
from models.integrations import Integration, MlflowIntegration

CODE = "unsupported_integration"


def check(settings: Settings, asked: list[Integration] | None) -> None:
    """Raises InvalidRequest, with what the administrator would have to set."""
    for place, one in enumerate(asked or []):
        if isinstance(one, MlflowIntegration):
            _check_mlflow(settings, one, f"integrations.{place}.mlflow.tracking_uri")
        elif settings.wandb_api_key is None and not settings.wandb_offline:
            raise InvalidRequest(
                "This server has no key of Weights & Biases.",
                hint="Ask the administrator to set LUTHIER_WANDB_API_KEY, or leave it out.",
                param=f"integrations.{place}",
                code=CODE,
            )


def _check_mlflow(settings: Settings, asked: MlflowIntegration, param: str) -> None:
    """A worker connects to it, so it is the administrator who says where to."""
    uri = asked.mlflow.tracking_uri
    if uri is None and settings.mlflow_tracking_uri is None:
        raise InvalidRequest(
            "This server knows no MLflow to report to.",
            hint="Name one in `tracking_uri`, or ask the administrator to set "
            "LUTHIER_MLFLOW_TRACKING_URI.",
            param=param,
            code=CODE,
        )
    if uri not in (None, settings.mlflow_tracking_uri, *settings.mlflow_allowed_uris):
        raise InvalidRequest(
            "Jobs may not report to this MLflow.",
            hint="Leave `tracking_uri` out for the server's own, or ask the administrator to name "
            "it in LUTHIER_MLFLOW_ALLOWED_URIS.",
            param=param,
            code=CODE,
        )
