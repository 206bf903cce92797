"""The training run: compiled steps, and between them validation, rows, checkpoints and samples, resumed exactly."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

from . import checkpoint, pages, plots
from .batches import Streams
from .config import EPOCH, VALIDATION_LIMIT, ModelConfig, TrainConfig
from .corpus import TextRecord
from .errors import CharRNNError, ConfigError, DivergedError, PeerError, TextError
from .evaluation import Evaluator, StoppedError
from .metrics import Row
from .pace import Pace
from .record import Record, warn
from .rendezvous import check_share
from .replicas import ALONE, LOST, Replicas
from .rundir import ElsewhereDirectory, RunDirectory
from .runtime import available_cores, default_xla, gpus, in_force, shards_for
from .sampling import Sampler
from .steps import MOST_SKIPPED, RunState, compile_steps
from .vocabulary import ByteVocabulary, Ids, Vocabulary

SAVE_SECONDS = 60.0  # between two saves where no --save-every is given


class Display(Protocol):
    """What a run tells whoever watches it, beside the rows that it yields."""

    def progress(self, step: int, loss: float | None, chars_per_second: float) -> None:
        """After each call of the compiled loop: the step reached, the mean loss since the last row, if a step was taken."""

    def sample(self, step: int, text: str) -> None:
        """A text written with the weights of this step."""


class Trainer:
    """Trains a model on ids and keeps its checkpoints; iterate over `run()`.

    >>> trainer = Trainer(model_config, train_config, vocabulary, ids, "checkpoints")  # doctest: +SKIP
    >>> for row in trainer.run():  # doctest: +SKIP
    ...     print(row.step, row.train_loss, row.validation_loss)

    The last `validation_fraction` of the ids is held out. A folder that holds a run already raises CheckpointError, unless
    `resume=True` goes on from its latest checkpoint (same settings but for budgets and reporting) or `overwrite=True`
    replaces it. Without a budget `TrainConfig.with_budget` sets one. Raises TextError for a text too short for one window.

    text: what to record of the text beside its ids. init_from: a checkpoint whose weights to begin with.
    started: `time.monotonic()` when the command began, for max_seconds; default: now. replicas: what a strategy trains on,
    `replicas.Mirrored()` or `Workers`.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        train_config: TrainConfig,
        vocabulary: Vocabulary,
        ids: Ids,
        directory: str | Path = "checkpoints",
        *,
        resume: bool = False,
        overwrite: bool = False,
        text: TextRecord | None = None,
        init_from: str | Path | None = None,
        started: float | None = None,
        replicas: Replicas = ALONE,
    ) -> None:
        if overwrite and init_from and Path(init_from).resolve().parent == Path(directory).resolve():
            raise ConfigError(f"--overwrite would remove what --init-from reads, {init_from}. Use another --checkpoint-dir.")
        if train_config.strategy != "none" and replicas is ALONE:
            its = {"mirrored": "Mirrored()", "multiworker": "Workers(cluster)"}[train_config.strategy]
            raise ConfigError(f"strategy {train_config.strategy} needs its replicas: Trainer(..., replicas={its})")
        if isinstance(vocabulary, ByteVocabulary):
            train_config = dataclasses.replace(train_config, vocabulary="bytes")
        elif train_config.vocabulary == "bytes":
            raise ConfigError("vocabulary bytes needs a ByteVocabulary")
        self._started = time.monotonic() if started is None else started
        self.model_config = model_config
        self.vocabulary = vocabulary
        self.text = text or TextRecord((), "", len(ids))
        self.init_from = str(init_from) if init_from else None
        training, self._validation = _hold_out(ids, train_config)
        self.held_out = len(ids) - len(training)  # characters that are not trained on
        self.streams = Streams(training, train_config.batch_size, train_config.num_steps)
        self.steps_per_epoch = self.streams.steps_per_epoch
        self.replicas = replicas
        check_share(train_config.batch_size, replicas.count)
        self.directory = self._open_directory(directory, train_config.keep, resume, overwrite)
        before = self.directory.latest if resume else None
        record = self.directory.records[before] if before else None
        self.config = self._completed(train_config.with_budget(len(ids)), record)
        self._validate_every = self.config.validation_interval(self.steps_per_epoch)
        self.state = RunState(model_config, self.config, replicas)
        self._seconds_before = 0.0
        self._train_loss: float | None = None  # of the last row
        self.last_validation: float | None = None  # of this process
        self._begun_under: Mapping[str, Any] = {}
        if before and record:
            checkpoint.restore(before, self.state.variables())
            self._begun_under = record.in_force
            self._seconds_before = record.seconds
            self._train_loss = record.train_loss
        elif init_from:
            checkpoint.restore_weights(init_from, self.state.model)
        self.state.spread()
        self._stop = False
        self.stopped = False  # whether the run has ended because this process or another worker was asked to
        self._sampler: Sampler | None = None
        self._evaluator = Evaluator(self.model, model_config, replicas.shards(self.config.shards))

    def _open_directory(self, path: str | Path, keep: int, resume: bool, overwrite: bool) -> RunDirectory:
        """The run's folder, which the chief makes ready; what a worker finds wrong ends all."""
        chief = self.replicas.is_chief
        problem: CharRNNError = PeerError(f"{'another worker' if chief else 'the chief'} could not begin; it says why")
        directory: RunDirectory | None = None
        try:
            if chief:
                directory = RunDirectory(path, keep, resume=resume, overwrite=overwrite)
            else:
                directory = ElsewhereDirectory(path, resume=resume)
        except CharRNNError as error:
            problem = error
        failed, *_ = self.replicas.agree(directory is None)
        if failed or directory is None:
            raise problem
        return directory

    def _completed(self, config: TrainConfig, record: Record | None) -> TrainConfig:
        """The settings with what is not given taken from the run's record, or from the machine and the run."""
        shards, xla = (config.shards, config.xla) if record is None else (record.train.shards, record.train.xla)
        if gpus():
            return dataclasses.replace(config, shards=shards or 1, xla=False)  # XLA can't compile what cuDNN computes
        xla = default_xla(config.batch_size, config.most_steps(self.steps_per_epoch)) if xla is None else xla
        shards = shards_for(shards, config.batch_size, self.replicas.count)
        _, shards = self.replicas.agree(False, shards)  # workers' cores may differ
        return dataclasses.replace(config, shards=int(shards), xla=xla and self.replicas.alone)

    @property
    def notes(self) -> list[str]:
        """What whoever starts the run should know beside its settings."""
        notes = []
        if self.config.precision != "float32" and not self.state.engine.precision:
            notes.append(f"This machine has no products in {self.config.precision}: training in float32.")
        now = in_force()
        begun = self._begun_under.items()
        changed = [f"{name} {was}, now {now[name]}" for name, was in begun if was != now.get(name, was)]
        if changed:
            notes.append(f"The run was begun with {'; '.join(changed)}: losses may differ in their last digits.")
        if self.step and self._all_steps_done:
            notes.append("All steps of this run are done. To go on, give a larger --max-steps or --epochs.")
        elif self.step and self._ended_early:
            notes.append("This run has ended early. To go on, give a larger --patience, or 0.")
        elif self.step and self.config.max_seconds and self.seconds >= self.config.max_seconds:
            notes.append("The time of this run is over. To go on, give a larger --max-seconds, or --max-steps or --epochs.")
        return notes

    @property
    def model(self) -> keras.Model:
        """The Keras model that is trained."""
        return self.state.model

    @property
    def device(self) -> str:
        """What computes."""
        parts = [f"CPU, {available_cores()} cores"]
        if gpus():
            parts = [f"{gpus()} GPU, cuDNN"]
        parts += [f"TensorFlow {tf.__version__}"] + ([] if self.replicas.alone else [f"{self.replicas.count} replicas"])
        return ", ".join(parts)

    @property
    def validation_characters(self) -> int:
        """Characters that each validation reads."""
        return len(self._validation)

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step)

    @property
    def total_steps(self) -> int | None:
        """Where the budgets in steps and epochs end the run; None where only time does."""
        return self.config.most_steps(self.steps_per_epoch)

    @property
    def gradient_norm(self) -> float:
        """Of the latest step, before clipping."""
        return float(self.state.gradient_norm)

    @property
    def seconds(self) -> float:
        """Wall time of the command so far, over all resumes."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def fraction_done(self) -> float:
        """How much of the budget that is furthest on is used, 0 to 1."""
        used = [self.step / self.total_steps] if self.total_steps else []
        used += [self.seconds / self.config.max_seconds] if self.config.max_seconds else []
        return min(1.0, max(used))

    @property
    def out_of_patience(self) -> bool:
        """Whether of the latest `patience` validations none was better than the best; one between two intervals, at the end
        of a budget, does not count."""
        best, interval = self.directory.best, self._validate_every
        return best is not None and 0 < self.config.patience <= self.step // interval - best.step // interval

    def _repr_html_(self) -> str | None:
        """For notebooks: the losses so far as a picture."""
        run = plots.run_or_none(self.directory.path)
        if run is None:
            return None
        picture = pages.picture(plots.as_svg(plots.draw([run])))
        return f'<img alt="Losses" style="background: #fff; max-width: 100%" src="{picture}">'

    def stop(self) -> None:
        """Ask the run to save and end after the call under way, as a signal does."""
        self._stop = True

    def run(self, display: Display | None = None) -> Iterator[Row]:
        """Train until a budget is reached or `stop` is called; yields the rows of metrics.csv as they are written.

        A run that reaches its budget ends with validation, row and checkpoint; one that is stopped only saves, and its
        resumption does what was due at that step. Of several workers each runs all of this, and the chief decides and
        writes; raises PeerError where another one ends.
        """
        try:
            yield from self._run(display)
        except LOST as error:
            if self.replicas.count == self.replicas.here:
                raise
            saved = (
                f"The last checkpoint is {self.directory.latest.name}. "
                if self.replicas.is_chief and self.directory.records
                else ""
            )
            raise PeerError(
                f"another worker has ended or can't be reached any more, at step {self.step:,}. {saved}Start all workers "
                "again with --resume."
            ) from error

    def _run(self, display: Display | None) -> Iterator[Row]:
        replicas = self.replicas
        pace = Pace(self.config, len(self._validation), shows_samples=display is not None)
        run_steps = compile_steps(self.state, self.model_config, self.config, self.steps_per_epoch)
        begun = saved = self.step
        saved_at = time.monotonic()
        final: float = bool(begun) and (self._spent(pace) or self._ended_early)
        self.stopped, *_ = replicas.agree(self._stop and not begun)
        if self.stopped:
            return
        with self.directory.open(begun) as metrics:
            while True:
                row = validation_loss = None
                stopping, final, save_due = replicas.agree(self._stop, final, self._save_due(saved_at))
                row_due = self._row_due(bool(final)) and not stopping
                if row_due and self._validation_due(bool(final)):
                    validation_loss = self._validate(pace)
                    stopping = validation_loss is None  # a stop meanwhile has ended it
                if row_due and not stopping:
                    row = self._close_row(validation_loss, pace)
                    metrics.append(row)
                    yield row
                improved: float = False
                if row:
                    self.last_validation = self.last_validation if validation_loss is None else validation_loss
                    improved = self._improved(validation_loss)
                    exhausted = validation_loss is not None and not improved and self.out_of_patience
                    stopping, improved, exhausted = replicas.agree(self._stop, improved, exhausted)
                    final = final or exhausted
                due = self.step > saved and bool(stopping or save_due)
                if due or improved or (final and row):
                    with pace.ending("saving"):
                        self._save(validation_loss, only_while_best=not (due or final or self.step == saved))
                    saved = self.step
                    saved_at = time.monotonic() if due else saved_at
                if (
                    display
                    and self.step > (begun if final else 0)
                    and not stopping
                    and (final or self._every(self.config.sample_every))
                ):
                    with pace.ending("sampling"):
                        for text in self._samples():
                            display.sample(self.step, text)
                if final or stopping:
                    self.stopped, *_ = replicas.agree(self._stop)
                    return
                left = self._seconds_left(pace)
                count = min(pace.steps(left), self._steps_to_event())
                stopping, count, time_fraction = replicas.agree(self._stop, count, self._time_fraction(left))
                if stopping:
                    continue
                windows = self.streams.read(self.step, int(count), replicas.rows(self.config.batch_size))
                with pace.training(len(windows)):
                    run_steps(windows, time_fraction)
                    final = self._spent(pace)
                self._check_losses()
                if display:
                    display.progress(self.step, self._mean_loss(), pace.chars_per_second)

    def _seconds_left(self, pace: Pace) -> float:
        """Until training must end for the run to end within max_seconds."""
        if self.config.max_seconds is None:
            return math.inf
        return self.config.max_seconds - pace.seconds_to_finish - self.seconds

    def _time_fraction(self, left: float) -> float:
        """How much of the time to train is used."""
        return 0.0 if left == math.inf else self.seconds / max(self.seconds + left, 1e-9)

    def _spent(self, pace: Pace) -> bool:
        """Whether a budget is reached."""
        return self._seconds_left(pace) <= 0 or self._all_steps_done

    @property
    def _all_steps_done(self) -> bool:
        return self.total_steps is not None and self.step >= self.total_steps

    @property
    def _ended_early(self) -> bool:
        """Whether the validation at this step was the last that patience allowed."""
        return not int(self.state.loss_steps) and self.out_of_patience

    def _steps_to_event(self) -> int:
        """Steps to the next one at which something else than training happens."""
        intervals = [self.config.log_every, self.steps_per_epoch, self._validate_every, self.config.save_every]
        intervals += [self.config.sample_every] if isinstance(self.config.sample_every, int) else []
        ends = [interval - self.step % interval for interval in intervals if interval]
        return min(ends + ([self.total_steps - self.step] if self.total_steps else []))

    def _every(self, interval: int | str | None) -> bool:
        length = self.steps_per_epoch if interval == EPOCH else interval
        return isinstance(length, int) and self.step % length == 0

    def _validation_due(self, final: bool) -> bool:
        return len(self._validation) > 1 and (final or self._every(self._validate_every))

    def _row_due(self, final: bool) -> bool:
        if not int(self.state.loss_steps):
            return False  # there is one for this step already
        return self._validation_due(final) or final or self._every(self.config.log_every) or self._every(EPOCH)

    def _save_due(self, saved_at: float) -> bool:
        if self.config.save_every is None:
            return time.monotonic() - saved_at >= SAVE_SECONDS
        return self._every(self.config.save_every)

    def _improved(self, validation_loss: float | None) -> bool:
        """Whether this validation is better than those of all checkpoints."""
        best = self.directory.best
        return validation_loss is not None and (
            best is None or best.validation_loss is None or validation_loss < best.validation_loss
        )

    def _check_losses(self) -> None:
        """Raise DivergedError where no step was taken for long."""
        if int(self.state.skipped_in_a_row) >= MOST_SKIPPED:
            good = f"The checkpoints up to {self.directory.latest.name} are good. " if self.directory.records else ""
            raise DivergedError(
                f"the loss or its gradient was not finite in {MOST_SKIPPED} steps in a row, up to step {self.step:,}, at a "
                f"learning rate of {float(self.state.optimizer.learning_rate):g}. {good}Begin again with a lower "
                "--learning-rate, or with --clip-norm."
            )

    def _mean_loss(self) -> float | None:
        taken = int(self.state.loss_steps) - int(self.state.skipped)
        return float(self.state.loss_sum) / taken if taken else None

    def _close_row(self, validation_loss: float | None, pace: Pace) -> Row:
        """The row of this step; the mean of the losses begins anew."""
        self._train_loss = self._mean_loss()
        if skipped := int(self.state.skipped):
            warn(f"up to step {self.step:,}, {skipped} were skipped: their loss or gradient was not finite.")
        for counter in (self.state.loss_sum, self.state.loss_steps, self.state.skipped):
            counter.assign(tf.zeros_like(counter))
        row = Row(
            step=self.step,
            epoch=self.step / self.steps_per_epoch,
            seconds=round(self.seconds, 3),
            train_loss=self._train_loss,
            validation_loss=validation_loss,
            learning_rate=float(self.state.optimizer.learning_rate),
            chars_per_second=round(pace.chars_per_second, 1),
        )
        pace.new_row()
        return row

    def _validate(self, pace: Pace) -> float | None:
        """Nats a character of the validation part, as the chief finds; None where it was asked to stop meanwhile."""
        loss, stopped = 0.0, False
        if self.replicas.is_chief:
            try:
                with pace.ending("validating"):
                    loss = self._evaluator.evaluate(self._validation, stopped=lambda: self._stop).nats_per_character
            except StoppedError:
                stopped = True
        stopped, loss = self.replicas.agree(stopped, loss)
        return None if stopped else loss

    def _samples(self) -> Iterator[str]:
        """Texts written with the weights as they are, one for each prime."""
        if self._sampler is None:
            self._sampler = Sampler(self.model_config, self.vocabulary)
        self._sampler.model.set_weights(self.model.get_weights())
        for prime in self.config.sample_prime:
            yield self._sampler.sample(
                prime,
                self.config.sample_length,
                top_n=self.config.sample_top_n,
                temperature=self.config.sample_temperature,
                seed=(self.config.seed + self.step) % 2**63,
                unknown="skip",
            )

    def _save(self, validation_loss: float | None, only_while_best: bool) -> None:
        for part in tf.nest.flatten(self.state.recurrent):
            self.replicas.complete(part)
        if not self.replicas.is_chief:
            return
        record = Record(
            model=self.model_config,
            train=self.config,
            vocabulary=self.vocabulary,
            text=self.text,
            step=self.step,
            epoch=self.step / self.steps_per_epoch,
            seconds=round(self.seconds, 3),
            train_loss=self._train_loss,
            validation_loss=validation_loss,
            only_while_best=only_while_best,
            init_from=self.init_from,
            in_force=in_force(),
        )
        self.directory.save(record, self.state.variables())


def _hold_out(ids: Ids, config: TrainConfig) -> tuple[Ids, Ids]:
    """The part to train on, and the beginning of what is held out, to validate on."""
    cut = config.training_characters(len(ids))
    validation = ids[cut:][:VALIDATION_LIMIT]
    if len(validation) == 1:
        raise TextError("the validation part is a single character. Use a longer text, or --validation-fraction 0.")
    return ids[:cut], validation
