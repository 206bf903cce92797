"""`charrnn-tf sample` and `charrnn-tf evaluate`."""

import json
import secrets
import sys
from typing import Any

import click

from ..api.progress import Reading
from ..errors import TextError
from ..machine import estimate, startup
from ..machine.hardware import available_cores
from ..runs.find import find_record, read_found
from ..runs.record import Record
from ..settings.schema import check_cuts
from ..text.corpus import check_length, load_corpus
from ..text.sources import Text
from ..text.vocabulary import ByteVocabulary, Ids, normalized
from .options import (
    Escaped,
    FilePath,
    Grouped,
    WholeNumber,
    checkpoint_options,
    in_options,
    json_option,
    option,
    output_option,
    reading_options,
    seed_option,
    unknown_option,
)
from .output import open_output, write_samples
from .streams import check_input, check_output, print_result


@click.command(cls=Grouped)
@checkpoint_options
@option(
    "Prime", "--prime", type=Escaped(), default="", shown="a newline, not printed",
    help=r"Beginning of the text; \n, \t, \\, \xHH and \uHHHH are escapes.",
)  # fmt: skip
@option("Prime", "--prime-file", type=FilePath(), help="Read the prime from a file; - for standard input.")
@option("Prime", "--interactive", is_flag=True, help="Ask for primes, one per line.")
@unknown_option("Prime")
@reading_options("Prime")
@option("Sampling", "--length", type=WholeNumber(1), default=1000, help="Characters to generate.")
@option(
    "Sampling", "--temperature", type=float, default=1.0,
    help="Below 1 safer, above 1 bolder; 0: always the likeliest character.",
)  # fmt: skip
@option(
    "Sampling", "--top-n", type=WholeNumber(0), default=5,
    help="Draw from the n likeliest characters only (top-k); 0: no cut.",
)  # fmt: skip
@option(
    "Sampling", "--top-p", type=float, default=1.0,
    help="Draw from the likeliest characters that together reach this probability; 1: no cut.",
)  # fmt: skip
@option(
    "Sampling", "--min-p", type=float, default=0.0,
    help="Draw only from characters with at least this many times the likeliest's probability; 0: no cut.",
)  # fmt: skip
@seed_option(None, "Sampling")
@option("Sampling", "--stop", type=Escaped(), shown="never", help=r"End a text before this string; escapes as in --prime.")
@option("Output", "--num-samples", type=WholeNumber(1), default=1, help="Number of texts.")
@output_option("File to write the text to.", type=FilePath(), shown="standard output")
def sample(
    checkpoint: str,
    checkpoint_dir: str,
    prime: str,
    prime_file: str | None,
    interactive: bool,
    num_samples: int,
    stop: str | None,
    seed: int | None,
    output: str | None,
    encoding: str | None,
    normalize: str | None,
    **draw: Any,
) -> None:
    """Generate text with a trained model.

    Prints the prime, then characters as they are generated.

    \b
    Example:
        charrnn-tf sample --checkpoint best --prime "Anna " --length 2000 --temperature 0.8
    """
    if sum((bool(prime), prime_file is not None, interactive)) > 1:
        raise click.UsageError("--prime, --prime-file and --interactive exclude each other; pass only one of them")
    if stop == "":
        raise click.UsageError("--stop needs a text that is not empty")
    check_cuts(**{name: draw[name] for name in ("top_n", "top_p", "temperature", "min_p")})
    if interactive:
        check_input()
    path, record = find_record(checkpoint, checkpoint_dir)
    estimate.check_memory(estimate.sampling_memory(record.model, num_samples), "Use fewer --num-samples.")
    vocabulary = record.vocabulary
    how = record.reading(encoding, normalize)
    known = _encode_prime(record, prime, prime_file, draw["unknown"], how)
    draw["normalize"] = "none"  # done
    raw = isinstance(vocabulary, ByteVocabulary)
    with open_output(output) as write:
        if seed is None:
            seed = secrets.randbelow(2**31)
            click.echo(f"Seed: {seed}", err=True)
        startup.start()
        from ..inference.sampling import Sampler

        sampler = read_found(path, checkpoint, checkpoint_dir, lambda found: Sampler.from_checkpoint(found, num_samples))
        if not interactive:
            end = "" if raw and output else "\n"  # a file of bytes holds only the requested bytes
            return write_samples(sampler, write, vocabulary.decode(known, "surrogateescape"), stop, end, seed=seed, **draw)
        while True:
            click.echo("Prime (end with Ctrl-D): ", nl=False, err=True)
            line = sys.stdin.buffer.readline()
            if not line:
                return click.echo(err=True)
            try:
                typed = line.decode(encoding or "utf-8", "surrogateescape").rstrip("\r\n")
                known = vocabulary.encode(normalized(typed, how["normalize"]), draw["unknown"])
            except TextError as error:
                click.echo(f"Error: {in_options(str(error))}", err=True)
                continue
            write_samples(sampler, write, vocabulary.decode(known, "surrogateescape"), stop, seed=seed, **draw)
            seed = (seed + 1) % 2**63


def _encode_prime(record: Record, prime: str, prime_file: str | None, unknown: str, how: dict[str, Any]) -> Ids:
    """The known ids of a prime; an unknown character is an error that names where the prime comes from.

    how: encoding and canonical form.
    """
    encode, characters = record.vocabulary.encode, normalized(prime, how["normalize"])
    if prime_file is not None:
        encode = record.vocabulary.encode_characters
        with Text((prime_file,), as_bytes=isinstance(record.vocabulary, ByteVocabulary), **how) as text:
            characters = "".join(text.blocks())
    try:
        return encode(characters, unknown)
    except TextError as error:
        raise TextError(f"{'--prime' if prime_file is None else repr(prime_file)} has {error}") from error


@click.command(cls=Grouped)
@click.argument("text", type=FilePath())
@checkpoint_options
@unknown_option("Scoring")
@reading_options("Scoring")
@option(
    "Scoring", "--window", type=WholeNumber(0, 2**31 - 1), default=0,
    help="Restart from a zero state every N characters, like a model with a context of N; 0: one pass.",
)  # fmt: skip
@json_option
def evaluate(
    text: str, checkpoint: str, checkpoint_dir: str, window: int, as_json: bool, encoding: str | None, normalize: str | None,
    unknown: str,
) -> None:  # fmt: skip
    """Score a text, in nats per character.

    The model reads the text (- for standard input) once, from a zero state.

    \b
    Example:
        charrnn-tf evaluate other.txt --checkpoint best --unknown skip
    """
    check_output()
    path, record = find_record(checkpoint, checkpoint_dir)
    reading = Reading(quiet=as_json)
    with reading as progress:
        how = record.reading(encoding, normalize)
        loaded = load_corpus([text], vocabulary=record.vocabulary, unknown=unknown, progress=progress, **how)
    (Reading() if loaded.left_out else reading).conclude(loaded)
    check_length(loaded.ids, repr(text))
    startup.start()
    from ..inference.evaluation import Evaluator
    from ..runs.checkpoint import load_model

    model, record = read_found(path, checkpoint, checkpoint_dir, load_model)
    evaluator = Evaluator(model, record.model, available_cores())
    with Reading(quiet=as_json, of="characters") as progress:
        result = evaluator.evaluate(loaded.ids, window=window, progress=progress)
    as_text = (
        f"{result.nats_per_character:.4f} nats per character ({result.bits_per_character:.4f} bits, perplexity "
        f"{result.perplexity:.3f}) over {result.characters:,} characters"
    )
    print_result(json.dumps(result.as_dict()) if as_json else as_text)


COMMANDS = (sample, evaluate)
