"""`charrnn-tf benchmark`."""

import json

import click

from ..machine import startup
from .options import Grouped, json_option, option
from .streams import check_output, print_result


@click.command(cls=Grouped)
@option("Measurement", "--compare", is_flag=True, help="Also measure plain Keras, and PyTorch if it is installed.")
@json_option
def benchmark(compare: bool, as_json: bool) -> None:
    """Measure this machine's speed.

    Large products, training steps and sampling: under 3 minutes without --compare.

    \b
    Example:
        charrnn-tf benchmark --compare
    """
    check_output()
    startup.start()
    from ..bench.benchmark import as_text
    from ..bench.benchmark import benchmark as measure

    result = measure(compare, lambda part: click.echo(f"Measuring {part} ...", err=True))
    print_result(json.dumps(result, indent=2) if as_json else as_text(result))


COMMANDS = (benchmark,)
