"""`charrnn-tf benchmark`: what it prints of a measurement; `tests/bench` tests the measuring."""

import json

import pytest
from commandline import call

from charrnn_tf.bench import benchmark

RESULT = {
    "machine": {"processor": "Some CPU", "cores": 2, "onednn": "1"}, "gflops": {"float32": 480.4},
    "train_step": {"notebook": {"float32": {"seconds": 0.61, "chars_per_second": 20_984.0, "share_of_limit": 0.837}}},
    "sampling": {"notebook": {"1": 8850.0, "16": 45_800.0}},
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_process")


@pytest.mark.parametrize("compare", [False, True])
def test_benchmark_prints_a_table_or_json_and_its_progress_on_standard_error(monkeypatch, compare):
    def measure(compared, say):
        assert compared == compare
        say("large products")
        return RESULT

    monkeypatch.setattr(benchmark, "benchmark", measure)
    flags = ["--compare"] if compare else []
    plain, as_json = call("benchmark", *flags), call("benchmark", *flags, "--json")
    assert plain.stderr == as_json.stderr == "Measuring large products ...\n"
    assert plain.stdout == benchmark.as_text(RESULT) + "\n"
    assert json.loads(as_json.stdout) == RESULT
