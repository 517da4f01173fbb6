"""`python -m milepost`: the same as the console script `milepost`."""

from milepost.ops.cli import main

if __name__ == "__main__":
    main()
