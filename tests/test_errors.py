"""Exceptions and warnings: one base, one line each, causes in words."""

import errno

import pytest

from charrnn_tf import errors
from charrnn_tf.errors import CharRNNError, describe_character, reason, warn


def test_every_exception_is_a_charrnnerror():
    own = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(own) == 6
    assert all(issubclass(each, CharRNNError) and each.__doc__ for each in own)


def test_a_warning_is_logged_once(caplog):
    for number in (1, 2, 1):
        warn(f"{number} files are damaged")
    assert caplog.messages == ["Warning: 1 files are damaged", "Warning: 2 files are damaged"]


@pytest.mark.parametrize(("character", "shown"), [("é", "'é' (U+00E9)"), ("\n", "'\\n' (U+000A)"), ("👩", "'👩' (U+1F469)")])
def test_a_character_is_described_with_its_code_point(character, shown):
    assert describe_character(character) == shown


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(errno.EACCES, "Permission denied", "file"), "permission denied"), (OSError("Stale handle"), "stale handle"),
        (ValueError("Not a number"), "Not a number"),
    ],
)  # fmt: skip
def test_the_reason_of_an_error(error, shown):
    assert reason(error) == shown
