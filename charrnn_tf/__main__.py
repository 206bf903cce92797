"""`python -m charrnn_tf` is `charrnn-tf`."""

from .cli import main

main()
