"""`charrnn-tf sample` and `charrnn-tf evaluate`."""

from __future__ import annotations

import itertools
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..api.progress import Reading
from ..errors import TextError
from ..machine import estimate, startup
from ..machine.hardware import available_cores
from ..runs.find import find_record, read_found
from ..runs.record import Record
from ..settings.schema import check_cuts
from ..text.corpus import MUCH, check_length, load_corpus
from ..text.sources import Text
from ..text.vocabulary import ByteVocabulary, normalized
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
from .output import open_output, replaced, write_completions, write_samples
from .streams import check_input, check_output, print_result

if TYPE_CHECKING:
    from ..inference.sampling import Sampler


@click.command(cls=Grouped)
@checkpoint_options
@option(
    "Prime", "--prime", type=Escaped(), default="", shown="a newline, not printed",
    help=r"Beginning of the text; \n, \t, \\, \xHH and \uHHHH are escapes.",
)  # fmt: skip
@option("Prime", "--prime-file", type=FilePath(), help="Read the prime from a file; - for standard input.")
@option("Prime", "--primes", type=FilePath(), help="Read several primes from a file, one per line; - for standard input.")
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
    help="Drop characters whose probability is below this fraction of the likeliest's; 0: no cut.",
)  # fmt: skip
@seed_option(None, "Sampling")
@option("Sampling", "--stop", type=Escaped(), shown="never", help=r"End a text before this string; escapes as in --prime.")
@option("Output", "--num-samples", type=WholeNumber(1), default=1, help="Number of texts, of each prime.")
@json_option
@output_option("File to write the text to.", type=FilePath(), shown="standard output")
def sample(
    checkpoint: str,
    checkpoint_dir: str,
    prime: str,
    prime_file: str | None,
    primes: str | None,
    interactive: bool,
    num_samples: int,
    as_json: bool,
    stop: str | None,
    seed: int | None,
    output: str | None,
    encoding: str | None,
    normalize: str | None,
    **draw: Any,
) -> None:
    """Generate text with a trained model.

    Prints the prime, then characters as they are generated. With --json, a line for each text: an object with prime, text
    (without the prime), seed, sample (its number) and nats_per_character.

    \b
    Example:
        charrnn-tf sample --checkpoint best --prime "Anna " --length 2000 --temperature 0.8
    """
    if sum((bool(prime), prime_file is not None, primes is not None, interactive)) > 1:
        given = "--prime, --prime-file, --primes and --interactive"
        raise click.UsageError(f"{given} exclude each other; pass only one of them")
    if interactive and as_json:
        raise click.UsageError("--interactive and --json exclude each other; use --primes - for primes from a program")
    if stop == "":
        raise click.UsageError("--stop needs a text that is not empty")
    check_cuts(**{name: draw[name] for name in ("top_n", "top_p", "temperature", "min_p")})
    if interactive:
        check_input()
    path, record = find_record(checkpoint, checkpoint_dir)
    rows = 1 if as_json or primes is not None else num_samples  # `sample_many` takes as many as fit
    estimate.check_memory(estimate.sampling_memory(record.model, rows), "Use fewer --num-samples.")
    how = record.reading(encoding, normalize)
    if primes is None:
        texts = [_read_prime(record, prime, prime_file, draw["unknown"], how)]
    else:
        texts = _read_primes(record, primes, draw["unknown"], how)
    draw |= {"normalize": "none", "stop": stop}  # normalized above
    with open_output(output) as write:
        if seed is None:
            seed = secrets.randbelow(2**31)
            click.echo(f"Seed: {seed}", err=True)
        startup.start()
        from ..inference.sampling import Sampler

        sampler = read_found(path, checkpoint, checkpoint_dir, lambda found: Sampler.from_checkpoint(found, rows))
        if interactive:
            return _answer(sampler, write, encoding or "utf-8", how["normalize"], seed, **draw)
        if as_json or primes is not None:
            return write_completions(sampler, write, texts, num_samples, as_json, seed=seed, **draw)
        raw = isinstance(record.vocabulary, ByteVocabulary)
        end = "" if raw and output else "\n"  # a file of bytes holds only the requested bytes
        return write_samples(sampler, write, texts[0], end=end, seed=seed, **draw)


def _answer(sampler: Sampler, write: Callable[[str], object], encoding: str, form: str, seed: int, **draw: Any) -> None:
    """Ask for primes, one per line, and write texts after each, until the input ends. form: normalization form."""
    vocabulary = sampler.vocabulary
    while True:
        click.echo("Prime (end with Ctrl-D): ", nl=False, err=True)
        line = sys.stdin.buffer.readline()
        if not line:
            return click.echo(err=True)
        try:
            typed = line.decode(encoding, "surrogateescape").rstrip("\r\n")
            known = vocabulary.encode(normalized(typed, form), draw["unknown"])
        except TextError as error:
            click.echo(f"Error: {in_options(str(error))}", err=True)
            continue
        write_samples(sampler, write, vocabulary.decode(known, "surrogateescape"), seed=seed, **draw)
        seed = (seed + 1) % 2**63


def _read_primes(record: Record, primes: str, unknown: str, how: dict[str, Any]) -> list[str]:
    """The primes in a file, one per line, as the model reads them; an unknown character is an error that names the line."""
    vocabulary, texts = record.vocabulary, []
    with Text((primes,), as_bytes=isinstance(vocabulary, ByteVocabulary), once=True, **how) as text:
        for number, line in enumerate(text.lines(), 1):
            try:
                known = vocabulary.encode_characters(line.removesuffix("\r"), unknown)
            except TextError as error:
                raise TextError(f"line {number:,} of {primes!r} has {error}") from error
            texts.append(vocabulary.decode(known, "surrogateescape"))
    if not texts:
        raise TextError(f"{primes!r} is empty: write a prime on each line")
    return texts


def _read_prime(record: Record, prime: str, prime_file: str | None, unknown: str, how: dict[str, Any]) -> str:
    """A prime as the model reads it; an unknown character is an error that names where the prime comes from.

    how: encoding and normalization form.
    """
    encode, characters = record.vocabulary.encode, normalized(prime, how["normalize"])
    if prime_file is not None:
        encode = record.vocabulary.encode_characters
        with Text((prime_file,), as_bytes=isinstance(record.vocabulary, ByteVocabulary), **how) as text:
            characters = "".join(text.blocks())
    try:
        return record.vocabulary.decode(encode(characters, unknown), "surrogateescape")
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
@option("Scoring", "--lines", "by_line", is_flag=True, help="Score each line by itself, from a zero state after a newline.")
@option("Scoring", "--with-newline", is_flag=True, help="With --lines: also score the newline at the end of each line.")
@json_option
def evaluate(
    text: str, checkpoint: str, checkpoint_dir: str, window: int, by_line: bool, with_newline: bool, as_json: bool,
    encoding: str | None, normalize: str | None, unknown: str,
) -> None:  # fmt: skip
    """Score a text, in nats per character.

    The model reads the text (- for standard input) once, from a zero state. With --lines, it reads each line by itself;
    prints nats, characters, perplexity and the line, separated by tabs, or as an object with --json.

    \b
    Example:
        charrnn-tf evaluate other.txt --checkpoint best --unknown skip
    """
    if with_newline and not by_line:
        raise click.UsageError("--with-newline is for --lines; add it")
    if window and by_line:
        raise click.UsageError("--lines and --window exclude each other; pass only one of them")
    check_output()
    path, record = find_record(checkpoint, checkpoint_dir)
    how = record.reading(encoding, normalize)
    if by_line:
        scoring = {"with_newline": with_newline, "unknown": unknown}
        return _evaluate_lines(text, (path, checkpoint, checkpoint_dir), record, how, as_json, **scoring)
    reading = Reading(quiet=as_json)
    with reading as progress:
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
    return print_result(json.dumps(result.as_dict()) if as_json else as_text)


def _evaluate_lines(
    text: str, found: tuple[Path, str, str], record: Record, how: dict[str, Any], as_json: bool, **scoring: Any
) -> None:
    """Print a row for each line of a text. found: the arguments of `read_found` before the last."""
    raw = isinstance(record.vocabulary, ByteVocabulary)
    with Text((text,), as_bytes=raw, once=True, **how) as content:
        given = content.lines()
        first = list(itertools.islice(given, 1))  # a text that can't be read is told before TensorFlow starts
        startup.start()
        from ..inference.line_scores import LineScorer
        from ..runs.checkpoint import load_model

        scorer = LineScorer(*read_found(*found, load_model))
        given = itertools.chain(first, given)
        if raw:
            given = (line.encode("latin-1").decode("utf-8", "surrogateescape") for line in given)
        for score in scorer.score(given, normalize="none", title=repr(text), **scoring):
            row = score._replace(text=replaced(score.text))
            shown = f"{row.nats:.4f}\t{row.characters}\t{row.perplexity:.3f}\t{row.text}"
            print_result(json.dumps(row._asdict()) if as_json else shown)
    if 0 < scorer.left_out.share < MUCH:
        click.echo(f"{scorer.left_out}.", err=True)


COMMANDS = (sample, evaluate)
