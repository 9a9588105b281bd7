"""`python -m neuroscope_bridge` is `neuroscope`."""

from neuroscope_bridge.cli import main

if __name__ == "__main__":
    main()
