"""The training run: compiled steps, and between them validation, rows, checkpoints and samples; resumes exactly."""

import dataclasses
import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from ..errors import CharRNNError, PeerError, warn
from ..inference.evaluation import Evaluator
from ..machine.hardware import physical_gpus, this_machine
from ..machine.startup import check_process, forked, in_force, start
from ..runs import checkpoint
from ..runs.chart import chart
from ..runs.directory import ReadOnlyDirectory, RunDirectory
from ..runs.metrics import Row
from ..runs.record import Record
from ..settings.merge import complete
from ..settings.schema import ADD, ModelConfig, TrainConfig
from ..text.corpus import TextRecord
from ..text.lines import arranged, line_start, parts
from ..text.vocabulary import Ids, Vocabulary
from . import fit
from .budget import Calendar, Clock, Pace
from .compiled import TrainSteps, check_losses, compile_steps
from .replicas import ALONE, LOST, Plan, Replicas
from .rows import Rows, release
from .samples import Display, Samples
from .state import RunState
from .validation import MOST_VALIDATING, TOO_LONG, Validator


class Trainer:
    """Trains a model on ids and saves checkpoints; iterate over `run()`.

    >>> trainer = Trainer(model_config, train_config, vocabulary, ids, "checkpoints")  # doctest: +SKIP
    >>> for row in trainer.run():  # doctest: +SKIP
    ...     print(row.step, row.train_loss, row.validation_loss)

    ids: integers from 0 to V - 1, [characters]; the last `validation_fraction` of them is held out. A folder that already
    holds a run raises CheckpointError, unless `resume=True` continues from its latest checkpoint (with the same text and
    settings, except those of `schema.RESUMABLE`) or `overwrite=True` replaces the run as soon as the new one has saved.
    Without a budget, `settings.merge.complete` sets one. Raises ConfigError for arguments that do not fit each other, and
    TextError for a text too short for one window.

    text: record of the text, saved beside its ids. init_from: a checkpoint whose weights to start from.
    started: `time.monotonic()` at which `max_seconds` starts; default: only the time spent inside `run` counts.
    replicas: for several devices, `Mirrored()` or `Workers(cluster)` from `distributed.strategies`.
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
        release(directory)
        fit.check_arguments(directory, resume, overwrite, init_from, train_config, replicas)
        ids, train_config = fit.checked(ids, vocabulary, model_config, train_config)
        if init_from and not resume:
            fit.check_initial(init_from, model_config, vocabulary, adds=train_config.unknown == ADD)
        self.clock, self.pace = Clock(started), Pace(train_config)
        self.model_config, self.vocabulary = model_config, vocabulary
        self.text = text or fit.record_of(ids)
        self.init_from = str(init_from) if init_from else None
        ids = arranged(ids, vocabulary, train_config)
        self.streams, training, validation = parts(ids, vocabulary, train_config)
        self.held_out = len(ids) - len(training)  # characters
        self.validation_characters = len(validation)  # that each validation reads
        self.steps_per_epoch = self.streams.steps_per_epoch  # windows in one pass over the training part
        self.replicas = replicas
        self.directory = self._open_directory(directory, train_config.keep, resume, overwrite)
        before = self.directory.latest if resume else None
        record = self.directory.records[before] if before else None
        if record:
            train_config = fit.resumed(record, model_config, train_config, vocabulary, self.text, directory)
        config = complete(train_config, len(ids), this_machine(physical_gpus()), replicas.count)
        start(replicas.shards(config.shards))
        shards = replicas.agree(Plan(shards=config.shards or 1)).shards  # workers may have different numbers of cores
        self.config = dataclasses.replace(config, shards=shards, xla=bool(config.xla) and replicas.alone)
        self.calendar = Calendar(self.config, self.steps_per_epoch, validates=self.validation_characters > 1)
        self.total_steps = self.calendar.total_steps  # at which `max_steps` or `epochs` ends the run; None without either
        self.state = RunState(model_config, self.config, replicas, line_start(vocabulary, self.config))
        self._restore(before, record)
        self.last_validation: float | None = None  # of this process
        self._stop = self.stopped = False  # asked to; whether the latest `run` ended because some worker was asked to
        self._samples = Samples(model_config, self.config, vocabulary)
        evaluator = Evaluator(self.model, model_config, replicas.shards(self.config.shards))
        self._validator = Validator(evaluator, training, validation)

    def _open_directory(self, path: str | Path, keep: int, resume: bool, overwrite: bool) -> RunDirectory:
        """The run's folder; a problem in any process ends all."""
        chief, problem = self.replicas.is_chief, None
        try:
            directory = RunDirectory(path, keep, resume, overwrite) if chief else ReadOnlyDirectory(path, resume)
        except CharRNNError as error:
            problem = error
        if self.replicas.agree(Plan(stop=problem is not None)).stop:
            other = "another worker" if chief else "the chief"
            raise problem or PeerError(f"{other} could not start; its own error says why")
        return directory

    def _restore(self, path: Path | None, record: Record | None) -> None:
        """Restore a run that continues, or the weights that a new one starts from."""
        self._train_loss: float | None = None  # of the last row
        self.seconds_before, self._time_used = 0.0, False  # until the run was resumed; whether that was the whole budget
        self.begun_under: Mapping[str, Any] = {}  # hardware, threads, measured speed at its start
        if path and record:
            checkpoint.restore(path, self.state.variables())
            self.clock.before = self.seconds_before = record.seconds
            self._train_loss, self.begun_under = record.train_loss, record.in_force
            self._time_used = fit.used_its_time(record, self.config, self.calendar, int(self.state.loss_steps))
        elif self.init_from:
            checkpoint.restore_weights(self.init_from, self.model, adds=self.config.unknown == ADD)
        self.state.spread()

    @property
    def model(self) -> Any:
        """The model as it is evaluated, sampled and saved."""
        return self.state.model

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step)

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all resumes."""
        return self.clock.seconds

    @property
    def out_of_patience(self) -> bool:
        """Whether none of the latest `patience` validations improved on the best."""
        used = self.calendar.patience_used(self.step, self.directory.best.step if self.directory.best else None)
        return used and self._validator.stops(self.directory.rows, self.config.patience)

    @property
    def ended_early(self) -> bool:
        """Whether patience ended the run at this step."""
        return not int(self.state.loss_steps) and self.out_of_patience

    @property
    def nothing_to_do(self) -> str | None:
        """The reason why an ended run does not continue, and how to continue it; None for any other run."""
        return self.calendar.why_ended(self.step, self._seconds_left() <= 0, self.ended_early) if self.step else None

    def _repr_html_(self) -> str | None:
        """Chart of the losses so far, for notebooks; None before the first row."""
        return chart(self.directory.rows) if self.directory.rows else None

    def stop(self) -> None:
        """Ask the run to save and end after the current call, as a signal does."""
        self._stop = True

    def run(self, display: Display | None = None) -> Rows:
        """Train until a budget is reached or `stop` is called; yields the rows of metrics.csv as they are written.

        A run that reaches its budget ends with validation, row and checkpoint. A stopped run only saves (`Rows` too where
        the loop is interrupted or left); when it resumes, it does what was due at that step. Every worker runs all of this;
        the chief decides and writes. Raises PeerError where another worker ends.
        """
        check_process()
        return Rows(self._until_stopped(display), self.directory.path, self.clock, self.stop, self.nothing_to_do)

    def _until_stopped(self, display: Display | None) -> Generator[Row]:
        """`_run`, with errors for lost workers."""
        if not display and (why := self.nothing_to_do):
            warn(why)
        try:
            yield from self._run(display)
        except LOST as error:
            if self.replicas.count == self.replicas.here:
                raise
            raise PeerError(
                f"another worker has ended or can't be reached any more, at step {self.step:,}. {self.directory.last_saved}"
                "Start all workers again with `resume`."
            ) from error
        finally:
            self._stop = False  # the next `run` goes on

    def _run(self, display: Display | None) -> Generator[Row]:
        """Alternate between what is due at a step (validation, row, save, samples, end) and steps up to the next event."""
        config = self.config
        pace = self.pace = Pace(config, shows_samples=display is not None)
        begun = self._saved = self.step
        saved_at = time.monotonic()  # of the latest regular save
        ended = bool(begun) and (self._budget_used() or self.ended_early)
        self.stopped = self.replicas.agree(Plan(stop=self._stop and not begun)).stop
        if self.stopped:
            return
        with self.directory.open(begun):
            if not ended:
                self._prepare()
            calendar = self.calendar
            while True:
                hurry = self._seconds_left() < pace.cost("validating")
                plan = self._agree(end=ended, save=calendar.save(self.step, time.monotonic() - saved_at), skip=hurry)
                validates = calendar.validation(self.step, plan.end) and (plan.end or not plan.skip)
                row = loss = None
                if not plan.stop and int(self.state.loss_steps) and (validates or calendar.row(self.step, plan.end)):
                    if validates:
                        loss = self._validate(display)
                        plan.stop = loss is None  # a stop came during validation: the resumed run repeats it
                    if not plan.stop:
                        row = self._close_row(loss)
                        self.directory.append(row)
                        with self._saving_if_left(loss):
                            yield row
                        improved, over = self._judge(loss)
                        plan = self._agree(end=plan.end or over, save=plan.save, improved=improved)
                regular = self.step > self._saved and (plan.save or (plan.stop and self._stop_saves))
                if regular or plan.improved or (plan.end and row):
                    only_while_best = not (regular or plan.end or self.step == self._saved)
                    with pace.ending("saving"):
                        self._save(loss, only_while_best)
                    saved_at = time.monotonic() if regular else saved_at
                if display and not plan.stop and self._sample_due(plan.end, begun):
                    with pace.ending("sampling"):
                        self._samples.show(self.model, self.step, display)
                if plan.end or plan.stop:
                    self.stopped = self._agree().stop
                    return
                train_steps, left = self._train_steps, self._seconds_left()
                used = 0.0 if left == math.inf else self.seconds / max(self.seconds + left, 1e-9)
                plan = self._agree(steps=min(pace.steps(left), calendar.steps_to_event(self.step)), time_fraction=used)
                if not plan.stop:
                    windows = self.streams.read(self.step, plan.steps, self.replicas.rows(config.batch_size))
                    with pace.training(plan.steps):
                        train_steps(windows, plan.time_fraction)
                        ended = self._budget_used()
                    check_losses(self.state, self.config, self.directory.last_saved)
                    if display:
                        display.progress(self.step, self.state.mean_loss(), pace.chars_per_second)

    @cached_property
    def _train_steps(self) -> TrainSteps:
        return compile_steps(self.state, self.model_config, self.config, self.steps_per_epoch)

    @contextmanager
    def _saving_if_left(self, loss: float | None) -> Iterator[None]:
        """Save where the caller leaves the run at a row, with the loss that it was validated with."""
        try:
            yield
        except GeneratorExit:
            if self.step > self._saved and self._stop_saves and self.replicas.count == self.replicas.here and not forked():
                self._save(loss, only_while_best=False)
            raise

    @property
    def _stop_saves(self) -> bool:
        """Whether a stop saves: not if a run that this one is to replace would be lost for a few steps."""
        return not (self.replicas.alone and self.directory.replaces)

    def _agree(self, **own: Any) -> Plan:
        """The plan of all workers, given this one's."""
        return self.replicas.agree(Plan(stop=self._stop, **own))

    def _prepare(self) -> None:
        """Test a save before the first step, and turn validation off if it would take too much of `max_seconds`."""
        with self.pace.ending("saving"):
            self.directory.prove(self._record(None, only_while_best=False), self.state.variables())
        if self.calendar.validates and self.replicas.is_chief:
            self._validator.warn_if_unlike(self.vocabulary)
        if self.config.max_seconds is not None and self.calendar.validates:
            seconds = self._validator.seconds() if self.replicas.is_chief else 0.0
            self.pace.expect("validating", seconds)
            if self._agree(skip=seconds > MOST_VALIDATING * (self.config.max_seconds - self.seconds)).skip:
                warn(f"{TOO_LONG}: about {seconds:.0f} s")
                self.calendar = dataclasses.replace(self.calendar, validates=False)
                self.pace.expect("validating", 0.0)

    def _sample_due(self, end: bool, begun: int) -> bool:
        """Whether samples are due: at their interval and at the end, unless the run was finished before it was resumed."""
        every, in_time = self.config.sample_every, self._seconds_left() >= self.pace.cost("sampling")
        return self.step > begun if end else self.step > 0 and self.calendar.every(every, self.step) and in_time

    def _seconds_left(self) -> float:
        """Time left for training steps within `max_seconds`."""
        if self.config.max_seconds is None:
            return math.inf
        return 0.0 if self._time_used else self.config.max_seconds - self.pace.seconds_to_finish - self.seconds

    def _budget_used(self) -> bool:
        return self._seconds_left() <= 0 or self.calendar.steps_done(self.step)

    def _validate(self, display: Display | None) -> float | None:
        """The validation loss, computed by the chief, nats per character; None where a stop was requested meanwhile."""
        plan = Plan()
        if display:
            display.activity("validating")
        if self.replicas.is_chief:
            with self.pace.ending("validating"):
                self.state.to_use()
                loss = self._validator.loss(stopped=lambda: self._stop)
            plan = Plan(stop=loss is None, loss=loss or 0.0)
        plan = self.replicas.agree(plan)
        return None if plan.stop else plan.loss

    def _judge(self, loss: float | None) -> tuple[bool, bool]:
        """Whether a validation loss is the best so far, and whether the run ends after it, by patience or time."""
        if loss is None:
            return False, False
        self.last_validation = loss
        best = self.directory.best
        improved = best is None or best.validation_loss is None or loss < best.validation_loss
        return improved, (not improved and self.out_of_patience) or self._seconds_left() <= 0

    def _close_row(self, validation_loss: float | None) -> Row:
        """The row of this step; resets the mean of the losses."""
        self._train_loss = self.state.mean_loss()
        if skipped := int(self.state.skipped):
            warn(f"{skipped} steps were skipped before step {self.step:,}: their loss or gradient was not finite.")
        self.state.reset_losses()
        row = Row(
            step=self.step, epoch=self.step / self.steps_per_epoch, seconds=round(self.seconds, 3),
            train_loss=self._train_loss, validation_loss=validation_loss,
            learning_rate=float(self.state.optimizer.learning_rate), chars_per_second=round(self.pace.chars_per_second, 1),
        )  # fmt: skip
        self.pace.new_row()
        return row

    def _save(self, validation_loss: float | None, only_while_best: bool) -> None:
        self._saved = self.step
        for part in tf.nest.flatten(self.state.recurrent):
            self.replicas.complete(part)
        if self.replicas.is_chief:
            self.directory.save(self._record(validation_loss, only_while_best), self.state.variables())

    def _record(self, validation_loss: float | None, only_while_best: bool) -> Record:
        return Record(
            model=self.model_config, train=self.config, vocabulary=self.vocabulary, text=self.text, step=self.step,
            epoch=self.step / self.steps_per_epoch, seconds=round(self.seconds, 3), train_loss=self._train_loss,
            validation_loss=validation_loss, only_while_best=only_while_best, init_from=self.init_from,
            in_force={name: value for name, value in self.begun_under.items() if name == "speed"} | in_force(),
        )  # fmt: skip
