"""The job spec: what a user may ask for, and what it becomes once every default is filled in.

`JobRequest` is the body of POST /v1/fine_tuning/jobs. `ResolvedSpec` is what the trainer runs
(the `spec` of a job folder's `job.json`) and what `job.resolved` shows; `models/resolve.py` makes
one from the other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from models.data_spec import Cleaning, DataChoices, Strict
from models.integrations import Integration
from models.optimisation import Optimisation

Auto = Literal["auto"]
Tuning = Literal["full", "lora", "freeze", "scratch"]
PreferenceLoss = Literal["dpo", "ipo", "orpo", "kto"]

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Hyperparameters(Optimisation):
    """OpenAI's three, each a value or "auto", and ours beside them. None means the default."""

    # OpenAI's
    n_epochs: Auto | Annotated[int, Field(ge=1, le=1000)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=65536)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] = "auto"

    # Ours
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    micro_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.06
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    max_length: Annotated[int, Field(ge=4, le=1_000_000)] | None = None
    eval_every: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    beta: Auto | Annotated[float, Field(gt=0, le=100)] | None = None
    """What departing from the base model costs, and with ORPO the weight of the odds ratio. For
    `preference` alone."""
    preference_loss: PreferenceLoss | None = None
    """For `preference` alone: `kto` for rows with one answer, the others for rows with two."""


class MethodParameters(Strict):
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Method(Strict):
    type: Literal["supervised", "dpo", "reinforcement"] = "supervised"
    supervised: MethodParameters | None = None
    dpo: MethodParameters | None = None
    reinforcement: dict[str, Any] | None = None

    @property
    def parameters(self) -> MethodParameters | None:
        """Those of the type that is chosen."""
        return self.dpo if self.type == "dpo" else self.supervised


class Lora(Strict):
    """Low-rank adapters on all linear layers of the model's body, exported alone and merged."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[float, Field(gt=0, le=4096)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rslora: bool = False
    """Scale by alpha / sqrt(rank) in place of alpha / rank (arXiv 2312.03732)."""
    dora: bool = False
    """Learn the weights' magnitudes apart from their directions (arXiv 2402.09353)."""
    quantization: Literal["nf4"] | None = None
    """Keep the base model's linear layers in 4 bits while the adapters learn (QLoRA, arXiv
    2305.14314). What is handed over is the merged model in fp32, and the adapter."""

    @model_validator(mode="after")
    def _magnitudes_are_of_whole_weights(self) -> Lora:
        if self.dora and self.quantization is not None:
            raise ValueError("`dora` and `quantization` do not go together. Choose one of them.")
        return self


class Freeze(Strict):
    """What of the model stays as it is. Parts that the base model lacks are always trained."""

    layers: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The embeddings and this many layers from the bottom."""
    patterns: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]],
                        Field(max_length=64)] = Field(default_factory=list)  # fmt: skip
    """Parameters whose name is like one of these, with `*` for anything."""
    head_only: bool = False
    """All but the head."""
    gradual: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Only for a time: the head learns first, and every so many epochs the next layer from the top
    joins it, the embeddings last. With `layers` or `patterns`, those never do."""

    @model_validator(mode="after")
    def _of_one_head(self) -> Freeze:
        if self.head_only and self.gradual is not None:
            raise ValueError(
                "`gradual` lets layers join the head, and `head_only` keeps them out for good. "
                "Leave one of them out."
            )
        return self


class Resources(Strict):
    """What the job needs of a worker; it is claimed only by one that has it."""

    device: Literal["cpu", "cuda"] | None = None
    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """Of one machine, which share the rows of each step."""
    sharding: Literal["none", "full"] = "none"
    """Whether each GPU holds the whole model, or with "full" its part of weights, gradients and
    optimizer state."""


class JobRequest(DataChoices):
    """The body of a create call: OpenAI's fields, then ours, beside those of the data."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: Annotated[list[Integration], Field(max_length=4)] | None = None
    method: Method | None = None

    from_checkpoint: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    """A checkpoint (`ftckpt-…`) or a fine-tuned model (`ft:…`) to start from: its weights."""
    tuning: Tuning = "full"
    lora: Lora | None = None
    freeze: Freeze | None = None
    resources: Resources | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0

    @model_validator(mode="after")
    def _one_place_for_hyperparameters(self) -> JobRequest:
        of_method = self.method.parameters if self.method else None
        if self.method is not None and self.hyperparameters is not None and of_method is not None:
            raise ValueError(
                f"Give hyperparameters once: in `method.{self.method.type}.hyperparameters`, "
                "or in the older top-level `hyperparameters`, not in both."
            )
        return self

    @model_validator(mode="after")
    def _dpo_is_a_task(self) -> JobRequest:
        """What OpenAI calls a method of its own is a task here."""
        if self.method is not None and self.method.type == "dpo" and self.task is None:
            self.task = "preference"
        return self

    @model_validator(mode="after")
    def _tuning_and_its_choices(self) -> JobRequest:
        for name, choices in (("lora", self.lora), ("freeze", self.freeze)):
            if choices is not None and self.tuning != name:
                raise ValueError(
                    f"`{name}` goes with `tuning` '{name}'. Set that, or leave it out."
                )
        if self.tuning == "freeze" and (self.freeze is None or self.freeze == Freeze()):
            raise ValueError(
                "`tuning` 'freeze' needs to know what stays as it is: give `freeze` with `layers`, "
                "`patterns`, `head_only` or `gradual`."
            )
        return self

    def chosen_hyperparameters(self) -> Hyperparameters:
        """The hyperparameters from whichever of the two places carries them."""
        of_method = self.method.parameters if self.method else None
        if of_method is not None:
            return of_method.hyperparameters
        return self.hyperparameters or Hyperparameters()


class ResolvedSpec(Optimisation):
    """The spec with every default filled in: with the data's hash it says all that a run does."""

    task: str
    shape: str = ""
    """Which of the task's ways of writing a row the data has (`ingest/tasks/`), as `text,label`."""
    model: str
    """The base model, which `from_checkpoint` was once trained from."""
    model_revision: str | None
    from_checkpoint: str | None = None
    """What the run starts from in place of the base model's weights."""
    tuning: Tuning
    lora: Lora | None = None
    freeze: Freeze | None = None
    seed: int
    labels: list[str]
    """Sorted; position is the class id. Empty for tasks without labels."""
    train_rows: int
    valid_rows: int
    train_sha256: str
    valid_sha256: str | None
    skip_invalid: float = 0.0
    cleaning: Cleaning | None = None
    day: str | None = None
    """Where rows may be chats: the day (UTC) that chat templates which write the date take for
    today, in all attempts. It is the day that the job was made."""

    n_epochs: int
    total_steps: int
    """Optimizer steps of the whole run."""
    steps_per_epoch: int
    batch_size: int
    """Rows of one optimizer step, over all micro-batches and ranks."""
    micro_batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    max_length: int | None
    """In tokens; None means as long as the model takes."""
    eval_every: int
    checkpoint_every: int
    early_stopping_patience: int | None
    beta: float | None = None
    preference_loss: PreferenceLoss | None = None
    metric: str
    """Picks the best checkpoint. `loss` where no validation metric exists."""
    greater_is_better: bool
