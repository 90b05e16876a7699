"""The program `raycib`, and `python -m raycib`."""

import signal


def main() -> None:
    """Run it. Until its modules are there, Ctrl-C ends it as it ends any program: silently."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from raycib import cli

    signal.signal(signal.SIGINT, before)
    cli.main()


if __name__ == "__main__":
    main()
