"""The program `raycib`, and `python -m raycib`."""

from raycib.cli import main

if __name__ == "__main__":
    main()
