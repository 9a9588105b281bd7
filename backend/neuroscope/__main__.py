"""`python -m neuroscope` is `neuroscope`: the command line, found as the script of the distribution, since it lies above."""

from importlib.metadata import distribution

if __name__ == "__main__":
    (script,) = distribution("neuroscope-interp").entry_points.select(group="console_scripts", name="neuroscope")
    script.load()()
