"""metrics.csv: rows come back as they were written, and damaged files are refused."""

import re

import pytest
from conftest import names

from charrnn_tf.errors import CheckpointError
from charrnn_tf.runs.metrics import COLUMNS, MetricsFile, Row, read_rows

ROWS = [
    Row(10, 0.1, 1.25, 3.3333333333333335, None, 0.002, 12345.6),
    Row(20, 0.2, 2.5, 2.1, 2.0000000000000004, 5.478104412759421e-06, 0.0),
    Row(30, 0.3, 3.75, float("inf"), None, 1e-30, 9.5),
]


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, keep_to_step=0)
    for row in ROWS:
        file.append(row)
    file.close()
    return path


def test_rows_come_back_as_they_were_written(metrics):
    assert read_rows(metrics) == read_rows(str(metrics)) == ROWS
    lines = metrics.read_bytes().decode().split("\n")
    assert lines[0] == "step,epoch,seconds,train_loss,validation_loss,learning_rate,chars_per_second"
    assert lines[1] == "10,0.1,1.25,3.3333333333333335,,0.002,12345.6"
    assert lines[-1] == ""
    assert names(metrics.parent) == ["metrics.csv"]


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv", keep_to_step=0)
    for count, row in enumerate(ROWS, 1):
        file.append(row)
        assert read_rows(tmp_path / "metrics.csv") == ROWS[:count]
    file.to_disk()
    file.close()


@pytest.mark.parametrize(("step", "left"), [(0, 0), (9, 0), (10, 1), (25, 2), (30, 3), (99, 3)])
def test_rows_after_the_checkpoint_are_dropped(metrics, step, left):
    file = MetricsFile(metrics, keep_to_step=step)
    assert read_rows(metrics) == ROWS[:left]
    file.append(ROWS[2])
    file.close()
    assert read_rows(metrics) == [*ROWS[:left], ROWS[2]]


def test_a_resumed_run_without_the_file_starts_a_new_one(tmp_path):
    MetricsFile(tmp_path / "metrics.csv", keep_to_step=20).close()
    assert read_rows(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize(
    "text",
    [
        "", "step,loss\n1,2\n", "\n", ",".join(COLUMNS) + "\nten,0,0,0,0,0,0\n", ",".join(COLUMNS) + "\n10,0.1\n",
        ",".join(COLUMNS) + "\n10,0.1,1,3,,0.002,1,1\n", ",".join(COLUMNS) + "\n\n", "\xff", '"' + "x" * 200_000,
    ],
    ids=["empty", "other columns", "blank", "no step", "too few", "too many", "blank row", "no header", "a huge cell"],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=re.escape(f"can't read {str(path)!r}: ")):
        read_rows(path)
    with pytest.raises(CheckpointError, match="can't read"):
        MetricsFile(path, keep_to_step=20)
    assert path.read_text(encoding="latin-1") == text


def test_a_truncated_last_row_is_dropped(metrics):
    data = metrics.read_bytes()
    for cut in range(1, len(data.splitlines(keepends=True)[-1])):  # the machine stopped while the last row was on its way
        metrics.write_bytes(data[:-cut])
        MetricsFile(metrics, keep_to_step=20).close()
        assert read_rows(metrics) == ROWS[:2]


def test_a_missing_file_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"can't read '.*metrics\.csv': no such file or directory"):
        read_rows(tmp_path / "metrics.csv")
    with pytest.raises(CheckpointError, match=r"can't write '.*metrics\.csv': no such file or directory"):
        MetricsFile(tmp_path / "nowhere" / "metrics.csv", keep_to_step=0)
