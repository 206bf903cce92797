"""Prints what the default preset's rule chooses for a text in the default time on several machines, as a table.

    python tests/benchmarks/choices.py [CHARACTERS]

CHARACTERS is the length of the whole text (default 2,000,000). Nothing is measured: speeds are given.
"""

import sys

from charrnn_tf.settings.merge import merge, resolve
from charrnn_tf.settings.recipe import Machine

MACHINES = {
    "one core, bfloat16": Machine(cores=1, bfloat16=True),
    "two cores, AVX2 only": Machine(cores=2, only_avx2=True),
    "two cores, AVX-512 with bfloat16, slow": Machine(cores=2, bfloat16=True, speed=0.444),
    "two cores, AVX-512 with bfloat16, fast": Machine(cores=2, bfloat16=True),
    "two cores, AMX": Machine(cores=2, bfloat16=True, speed=3.38),
    "sixty-four cores, bfloat16": Machine(cores=64, bfloat16=True),
    "quota of half a core, bfloat16": Machine(cores=1, bfloat16=True, speed=0.444),
}


def main() -> None:
    """Print the table."""
    characters = int(sys.argv[1]) if sys.argv[1:] else 2_000_000
    print("| machine | speed | characters/s | passes | width | dropout of outputs | of recurrent weights |")
    print("|---|---|---|---|---|---|---|")
    for name, machine in MACHINES.items():
        resolved = resolve(merge("default", {}, {}), characters, 100, machine)
        passes, *_, speed, _ = resolved.chosen["dropout"].why.split()
        model, dropout = resolved.model, resolved.train.weight_dropout
        print(f"| {name} | {machine.speed:g} | {speed} | {passes} | {model.hidden_size} | {model.dropout} | {dropout} |")


if __name__ == "__main__":
    main()
