"""``python -m stereopsis``: the command line, for launchers that start modules (torchrun, accelerate)."""

from stereopsis.cli import main

if __name__ == "__main__":
    main()
