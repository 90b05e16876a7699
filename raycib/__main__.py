"""`python -m raycib`."""

from raycib.cli import main

main()
