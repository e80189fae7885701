"""One run in memory, and what can be done with it between two steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any, Literal, TypeVar

import torch

from training import (
    casts,
    checkpoint,
    compiled,
    devices,
    dropout,
    empty_steps,
    loss_scale,
    optim,
    rng,
    samples,
    sharding,
    tasks,
    tuning,
    unpadding,
)
from training.accumulate import Totals, accumulate
from training.batch_plan import BatchPlan
from training.control import Control, StopMode
from training.emphasis import Emphasis
from training.evaluate import evaluate
from training.export import export
from training.failures import NonFiniteLoss
from training.job import Job
from training.moving_average import MovingAverage
from training.parallel import ALONE, Ranks
from training.records import Records
from training.retreat import retreating
from training.sealing import Sealing
from training.sharding import Sharded
from training.state import RunState, Values
from training.tasks.base import Examples
from training.throughput import Throughput
from training.unfreezing import Unfreezing

Reason = Literal["interval", "best", "stop", "final"]
T = TypeVar("T")


class Run:
    """The model, its optimizer, the data, and the state that a checkpoint keeps.

    Between two calls of its methods nothing is half done, so the run can be left there.
    """

    train: Examples
    valid: Examples | None = None
    plan: BatchPlan
    tokens_left: int
    """The lengths of the rows of all steps to come."""

    def __init__(self, job: Job, records: Records, control: Control, ranks: Ranks = ALONE) -> None:
        """Load the model and what goes with it, from the base or from the checkpoint to resume."""
        self.job, self.spec, self.records, self.control = job, job.spec, records, control
        self.ranks = ranks
        self.device = devices.prepare(job.device, job.threads, ranks)
        self.environment = devices.environment(self.device, ranks)
        self.half = devices.half_dtype(self.device, self.spec.precision)

        self._phase("loading_model")
        resumed = job.resume_from
        saved = checkpoint.read_state(resumed) if resumed else None
        self.task = tasks.create(self.spec, partial(records.log, "info"))
        sharding.require(self.task, ranks)
        self.task.train, self.task.cache = job.train, job.token_cache
        held = None if ranks.sharded else self.half  # what is divided has to be of one dtype
        self.model = tuning.load(self.task, job.model_dir, resumed, held)
        if not ranks.sharded:
            self.model.to(self.device)  # type: ignore[arg-type]  # transformers wraps nn.Module.to
        self.model.train()
        dropout.install(self.model, self.spec.dropout)
        if self.half is not None:
            casts.install(self.model)
        if self.spec.activation_checkpointing:
            tuning.checkpoint_activations(self.model)
        ranks.same_as_first(chain(self.model.parameters(), self.model.buffers()))
        self.throughput = Throughput()

        self.state = RunState.fresh(self.spec)
        self.state.loss_scale = loss_scale.INITIAL if self.half == torch.float16 else 1.0
        self.state.micro_batch_tokens = unpadding.tokens_at_once(self.spec, self.model, job.device)
        if self.spec.torch_compile:
            compiled.install(self.model)
        self.sharded: Sharded | None = None
        if ranks.sharded:
            self.sharded = Sharded(self.task, self.model, self.device, ranks.count)
        self.optimizer = optim.create(self.model, self.spec)
        self.unfreezing = None
        if self.spec.freeze is not None and self.spec.freeze.gradual is not None:
            self.unfreezing = Unfreezing(self.model, self.spec, self.task.drawn)
            records.log("info", self.unfreezing.told(self.spec.total_steps))
        self.best_weights = checkpoint.best_weights(resumed) if resumed else job.model_dir
        """The folder of the best evaluation's weights; before there is one, of the newest."""
        self.average = None
        if self.spec.ema_decay is not None:
            self.average = MovingAverage(self.model, self.spec.ema_decay)
        if saved is not None:
            self._restore(saved)
        self.saved_step = self.state.step
        """The step whose checkpoint is written. At the start there is nothing to save."""
        self.sealing = Sealing(job, records)
        if ranks.first:
            checkpoint.clear(job.folder, after_step=self.state.step)
        parameters = [(p.numel(), p.requires_grad) for p in self.model.parameters()]
        records.write(
            "environment",
            device=devices.name(self.device.type),
            versions=devices.versions(),
            parameters=sum(size for size, _ in parameters),
            trained_parameters=sum(size for size, trained in parameters if trained),
        )

    def _restore(self, saved: dict[str, Any]) -> None:
        self.state = RunState.from_dict(saved["state"])
        self.optimizer.load_state_dict(sharding.divided(saved["optimizer"], self.optimizer))
        # Of another number of ranks, which is told below, each takes what there is.
        rng.restore(saved["rng"][self.ranks.rank % len(saved["rng"])])
        if self.average is not None:
            self.average.restore(saved["weights"])
        now, before = self.environment, saved["environment"]
        if changed := [name for name in now if now[name] != before.get(name)]:
            self.records.log(
                "warn",
                f"Resumed at step {self.state.step} with other {', '.join(changed)} than before: "
                "the weights may differ in their last bits from those of an unbroken run.",
                before=before,
                now=now,
            )

    def read_data(self) -> None:
        """Encode both files and plan the steps."""
        self._phase("preparing_data")
        check = self.control.check
        self.train = self.task.read(self.job.train, "training_file", check)
        if self.job.valid is not None:
            self.valid = self.task.read(self.job.valid, "validation_file", check)
        self.task.emphasis = Emphasis.of(self.spec, getattr(self.train, "targets", None))
        self.plan = BatchPlan(self.train.lengths, self.spec.batch_size, self.spec.seed)
        self.tokens_left = self.plan.tokens(self.state.step, self.spec.total_steps)
        self._phase("training")

    def evaluation_due(self) -> Examples | None:
        """What is to be evaluated at the present step, if anything is and was not yet."""
        step = self.state.step
        at_end = step == self.spec.total_steps
        due = step > 0 and (at_end or step % self.spec.eval_every == 0)
        return self.valid if due and self.state.evaluated_step != step else None

    def checkpoint_due(self) -> Reason | None:
        """Why a checkpoint of the present step is to be written, unless there is one."""
        step = self.state.step
        if self.saved_step == step:
            return None
        if self.finished():
            return "final"
        if step % self.spec.checkpoint_every == 0:
            return "interval"
        return "best" if self.state.best_step == step else None

    def finished(self) -> bool:
        """Whether no step is left to do, by count or by early stopping."""
        return self.state.step >= self.spec.total_steps or self._out_of_patience()

    def _out_of_patience(self) -> bool:
        patience = self.spec.early_stopping_patience
        return patience is not None and self.state.stale_evaluations >= patience

    def step(self) -> None:
        """One optimizer step, and its records."""
        started = time.perf_counter()
        state, spec = self.state, self.spec
        rate = optim.learning_rate(spec, state.step)
        rows = self.plan.rows(state.step)
        totals, norm = self._retreating(self._gradient)
        while not math.isfinite(norm) and loss_scale.lower(state):
            totals, norm = self._retreating(self._gradient)
        if not math.isfinite(norm):
            raise NonFiniteLoss.at(
                "gradient", state.step + 1, self.train.ids[rows], "training_file"
            )
        if totals.count:
            optim.set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
            loss_scale.after_step(state)
            if self.average is not None:
                self.average.update()
        seconds = time.perf_counter() - started

        lengths = self.train.lengths[rows]
        step_tokens = int(lengths.sum())
        self.tokens_left -= step_tokens
        self.throughput.add(lengths, totals.tokens, totals.count, seconds)
        state.step += 1
        state.trained_tokens += totals.tokens
        if totals.count:
            state.train = totals.means
            state.curve.add(state.step, totals.means["loss"])
            speed = {
                "tokens_per_second": totals.tokens / seconds,
                "samples_per_second": len(rows) / seconds,
            }
            of_step = {"learning_rate": rate, "grad_norm": norm}
            self._metrics("train", totals.means | of_step | speed)
        else:
            empty_steps.take(state, min(self.plan.steps_per_epoch, spec.total_steps), self.records)
        self.records.write(
            "progress",
            step=state.step,
            total_steps=spec.total_steps,
            epoch=state.step / self.plan.steps_per_epoch,
            trained_tokens=state.trained_tokens,
            step_tokens=step_tokens,
            tokens_left=self.tokens_left,
            peak_memory_bytes=devices.peak_memory(self.device),
        )

    def _gradient(self) -> tuple[Totals, float]:
        """The step's gradient and its norm. A second call gives the same bits as the first: it
        starts from no gradient and the step's own seed."""
        self.optimizer.zero_grad(set_to_none=True)
        step = self.state.step
        if self.unfreezing is not None:
            self.unfreezing.apply(step)
        rng.seed_all(rng.step_seed(self.spec.seed, step, self.ranks.rank))
        shares = self.plan.shares(
            step, self._rows_at_once(), self._tokens_at_once(), self.ranks.count
        )
        totals = accumulate(
            self.task,
            self.model,
            self.train,
            shares[self.ranks.rank],
            step=step + 1,
            epoch=step // self.plan.steps_per_epoch,
            half=self.half,
            scale=self.state.loss_scale,
            ranks=self.ranks,
            rounds=max(map(len, shares)) if self.ranks.sharded else 0,
        )
        if not totals.count:
            return totals, 0.0
        divisor = totals.count * self.state.loss_scale
        if self.spec.l1:
            optim.add_l1(self.model, self.spec.l1 * divisor)
        return totals, optim.normalise_gradients(self.model, divisor, self.spec.max_grad_norm)

    def _rows_at_once(self) -> int:
        """How many rows the task is given as one batch."""
        size = self.state.micro_batch_size
        self.task.rows_at_once = size
        return self.spec.batch_size if self.task.joins_rows else size

    def _tokens_at_once(self) -> int | None:
        """How many tokens of packed rows; None where rows are padded or belong together."""
        return None if self.task.joins_rows else self.state.micro_batch_tokens

    def _retreating(self, work: Callable[[], T]) -> T:
        """Do the work, in smaller micro-batches where the device's memory is too small for it."""
        return retreating(
            work,
            self.state,
            divided=self.ranks.sharded,
            forget=partial(self.optimizer.zero_grad, set_to_none=True),
            warn=lambda told: self.records.log(
                "warn",
                f"{told} A step still takes {self.spec.batch_size} rows.",
                step=self.state.step,
            ),
        )

    def evaluate(self, valid: Examples) -> None:
        """Measure these rows, and see whether these weights are the best so far."""
        self._phase("evaluating")
        # Statistics of batch norms, where they are learnt, are those of the first rank's rows.
        self.ranks.same_as_first(self.model.buffers())
        state, spec = self.state, self.spec
        with self._result():
            values = self._retreating(
                lambda: evaluate(
                    self.task,
                    self.model,
                    valid,
                    step=state.step,
                    batch_size=self._rows_at_once(),
                    batch_tokens=self._tokens_at_once(),
                    half=self.half,
                    between_batches=self.check,
                    ranks=self.ranks,
                )
            )
        if state.take_evaluation(values, spec.metric, spec.greater_is_better):
            # A stop during this evaluation may have left a checkpoint of this step. It is
            # written again, to know itself as the best.
            self.saved_step = -1
        self._metrics("valid", values)
        if self._out_of_patience():
            self.records.log(
                "info",
                f"Stopping early at step {state.step}: {spec.metric} has not improved since step "
                f"{state.best_step}.",
            )
        self._phase("training")

    def save(self, reason: Reason) -> None:
        """Write a checkpoint of the present step, which is completed beside the steps to come."""
        self._phase("saving")
        self.sealing.settle(wait=True)
        devices.release_pages()
        state = self.state
        best = state.best_step in (None, state.step)
        beside = {
            "state": state.as_dict(),
            "optimizer": sharding.gathered(self.optimizer.state_dict(), self.ranks.first),
            "rng": self.ranks.gathered(rng.capture()),
            "environment": self.environment,
            "weights": [w.clone() for w in self.average.state()] if self.average else None,
        }
        self.saved_step = state.step
        with self._result(), self._whole() as model:
            if not self.ranks.first:
                return
            filled = checkpoint.fill(
                self.job.checkpoints,
                state.step,
                save_model=partial(tuning.save, self.task, model),
                state=beside,
                best=None if best else self.best_weights,
            )
        self.best_weights = filled.path if best else filled.path / checkpoint.BEST
        self.sealing.begin(filled, metrics=state.metrics_here(), best=best, reason=reason)
        devices.release_pages()
        self._phase("training")

    def check(self) -> None:
        """Between two pieces of work: tell of a checkpoint that is complete by now, and raise
        StopRequested if a stop was asked for."""
        self.sealing.settle(wait=False)
        self.ranks.check(self.control)

    def stop(self, mode: StopMode) -> None:
        """Leave the run where it stands, with a checkpoint if asked for."""
        if mode == "save":
            if self.saved_step != self.state.step:
                self.save("stop")
            self.sealing.settle(wait=True)
        self.records.write("stopped", step=self.state.step)

    def export(self) -> None:
        """Write the output from the best checkpoint, or without validation from the last."""
        self.sealing.settle(wait=True)  # which takes a core that the peak is measured with, too
        text, values = self.throughput.told(self.model, self.device, self.half, self.ranks.count)
        if text:
            self.records.log("info", text, **values)
        empty_steps.tell(self.state, self.records)
        self._phase("exporting")
        shown = self.valid or self.train
        with self._result(), self._whole() as model, compiled.set_aside():
            if not self.ranks.first:
                return
            samples.leave(self.job, self.task, model, shown, self.half, self.records)
        size = export(self.job, self.state, self.best_weights, self.environment)
        self.records.write(
            "done",
            output=str(self.job.output.relative_to(self.job.folder)),
            step=self.state.step,
            metrics=self.state.final_metrics(),
            best_step=self.state.best_step or self.state.step,
            trained_tokens=self.state.trained_tokens,
            bytes=size,
        )

    def _result(self) -> AbstractContextManager[None]:
        """Within it the model has the weights that are judged and kept."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def _whole(self) -> AbstractContextManager[Any]:
        """The model with all of its weights, for the first rank. All of them have to ask."""
        return self.sharded.whole(self.ranks.first) if self.sharded else nullcontext(self.model)

    def _phase(self, name: str) -> None:
        self.records.write("phase", phase=name)

    def _metrics(self, split: str, values: Values) -> None:
        self.state.metric_points += 1
        self.records.write("metrics", step=self.state.step, split=split, values=values)
