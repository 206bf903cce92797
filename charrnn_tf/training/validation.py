"""The held-out part of a run: its loss, how long that takes, and whether it resembles the part that is trained on."""

from collections.abc import Callable, Sequence
from functools import cached_property

from ..errors import warn
from ..inference.evaluation import Evaluator, StoppedError
from ..runs.metrics import Row
from ..text.likeness import unlike
from ..text.vocabulary import Ids, Vocabulary

MOST_VALIDATING = 0.5  # part of the time left that a validation may take
BEGIN = 40  # characters of the held-out part that a warning shows
FLAT = 0.01  # the training loss is flat if it falls by less than this fraction over `patience` validations
TOO_LONG = "this run is not validated, since that would take more than half of its `max_seconds`"


class Validator:
    """Validates a model on the held-out part."""

    def __init__(self, evaluator: Evaluator, training: Ids, held_out: Ids) -> None:
        """held_out: the ids that each validation reads."""
        self._evaluator, self._training, self._held_out = evaluator, training, held_out

    def seconds(self) -> float:
        """The estimated time of a validation."""
        return self._evaluator.seconds(self._held_out)

    def loss(self, stopped: Callable[[], bool]) -> float | None:
        """The loss in nats per character; None once `stopped` returns True."""
        try:
            return self._evaluator.evaluate(self._held_out, stopped=stopped).nats_per_character
        except StoppedError:
            return None

    @cached_property
    def unlike(self) -> bool:
        """Whether the held-out part is unlike the rest, as in a sorted text."""
        return unlike(self._training, self._held_out)

    def warn_if_unlike(self, vocabulary: Vocabulary) -> None:
        """Warn before training if the held-out part is unlike the rest."""
        if self.unlike:
            begin = vocabulary.decode(self._held_out[:BEGIN], "replace")
            warn(
                f"the held-out part, the end of the text from {begin!r} on, is unlike the rest: the validation loss says "
                "little about the model. Shuffle a text that is sorted (a list of lines: with `lines`), or leave out an "
                "appendix."
            )

    def stops(self, rows: Sequence[Row], patience: int) -> bool:
        """Whether `patience` may end a run with these rows.

        If the held-out part is unlike the rest, only once the training loss is flat.
        """
        losses = [row.train_loss for row in rows if row.validation_loss is not None and row.train_loss is not None]
        return not self.unlike or (len(losses) > patience and losses[-1] > (1 - FLAT) * losses[-1 - patience])
