"""Counters of the service, in Prometheus's text format."""

from collections import Counter
from collections.abc import Mapping

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # upper bounds of the histograms' buckets
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How often a time fell into each bucket."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0
        self._buckets = [0] * len(SECONDS)

    def observe(self, seconds: float) -> None:
        """Count a time."""
        self.sum += seconds
        self.count += 1
        for n, most in enumerate(SECONDS):
            self._buckets[n] += seconds <= most

    def lines(self, name: str) -> list[str]:
        """Lines of the histogram in Prometheus's text format."""
        buckets = [f'{name}_bucket{{le="{most}"}} {count}' for most, count in zip(SECONDS, self._buckets, strict=True)]
        return [
            *buckets,
            f'{name}_bucket{{le="+Inf"}} {self.count}',
            f"{name}_sum {self.sum:.6f}",
            f"{name}_count {self.count}",
        ]


class Metrics:
    """Requests by status, characters, and times; used from one thread."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()  # by status
        self.read = self.written = 0  # characters
        self.first_characters, self.duration = Histogram(), Histogram()

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All in Prometheus's format. gauges: name -> help and value, for what is true at this moment."""
        statuses = [
            f'charrnn_requests_total{{status="{status}"}} {count}' for status, count in sorted(self.requests.items())
        ]
        metrics = [
            ("charrnn_requests_total", "counter", "Requests by HTTP status; 499: the client left.", statuses),
            _single("charrnn_prompt_characters_total", "counter", "Characters read of prompts.", self.read),
            _single("charrnn_generated_characters_total", "counter", "Characters written.", self.written),
            *(_single(f"charrnn_{name}", "gauge", about, value) for name, (about, value) in gauges.items()),
        ]
        for name, about, histogram in (
            ("charrnn_first_characters_seconds", "Time to a request's first characters.", self.first_characters),
            ("charrnn_request_seconds", "Time of whole requests for texts.", self.duration),
        ):
            metrics.append((name, "histogram", about, histogram.lines(name)))
        return "".join(
            "".join(f"{line}\n" for line in (f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines))
            for name, kind, about, lines in metrics
        )


def _single(name: str, kind: str, about: str, value: float) -> tuple[str, str, str, list[str]]:
    return name, kind, about, [f"{name} {value}"]
