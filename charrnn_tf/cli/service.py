"""`charrnn-tf serve`."""

from importlib.util import find_spec
from typing import Any

import click

from ..errors import ConfigError
from ..machine import estimate, startup
from ..runs.find import find_record, read_found
from ..service.address import bind, is_loopback, read_keys, url
from .options import FilePath, Grouped, WholeNumber, checkpoint_options, option

LOOPBACK = "127.0.0.1"


@click.command(cls=Grouped)
@checkpoint_options
@option("Address", "--host", default=LOOPBACK, help="Address to listen on; any but a loopback address needs --api-key-file.")
@option("Address", "--port", type=WholeNumber(0, 65535), default=8000, help="Port to listen on; 0: a free one.")
@option("Address", "--api-key-file", type=FilePath(), help="File with the keys that requests must show, one a line.")
@option("Limits", "--rows", type=WholeNumber(1, 1024), default=32, help="Texts written at once.")
@option("Limits", "--queue", type=WholeNumber(0, 10_000), default=256, help="Texts that may wait for a row.")
@option("Limits", "--max-length", type=WholeNumber(1, 10**6), default=4096, help="Characters that a request may ask for.")
@option("Limits", "--timeout", type=WholeNumber(1, 10**5), default=60, help="Seconds that a request may take.")
def serve(
    checkpoint: str, checkpoint_dir: str, host: str, port: int, api_key_file: str | None, rows: int, **limits: Any
) -> None:
    """Serve a model over HTTP, as OpenAI's completions.

    Ctrl-C or SIGTERM ends it once the requests that it has are answered.

    \b
    Example:
        charrnn-tf serve --checkpoint best --port 8000
    """
    keys = () if api_key_file is None else read_keys(api_key_file)
    if not keys and not is_loopback(host):
        raise ConfigError(f"others can reach `host` {host!r}: `api_key_file` must name a file with keys")
    path, record = find_record(checkpoint, checkpoint_dir)
    estimate.check_memory(estimate.sampling_memory(record.model, rows), "Use fewer `rows`.")
    with bind(host, port) as sock:
        if not all(map(find_spec, ("starlette", "uvicorn"))):
            raise ConfigError("a server needs the packages starlette and uvicorn: pip install 'charrnn-tf[serve]'")
        startup.start()
        from ..inference.sampling import Sampler
        from ..service.app import Limits, Service
        from ..service.server import Server, log_to_stderr

        sampler = read_found(path, checkpoint, checkpoint_dir, lambda found: Sampler.from_checkpoint(found, rows))
        log_to_stderr()
        service = Service(sampler, path.name, Limits(**limits), keys)
        Server(service, lambda: click.echo(f"Serving {path.name} on {url(sock)}", err=True)).run([sock])


COMMANDS = (serve,)
