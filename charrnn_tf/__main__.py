"""`python -m charrnn_tf` is `charrnn-tf`."""

from .cli.main import main

main()
