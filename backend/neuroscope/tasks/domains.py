"""Texts of three domains: prose, mathematics, programs.

They serve as background text in training, and as labelled texts for concepts and entanglement.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuroscope.tasks.lexicon import GOOD, NAMES, OBJECTS, PEOPLE, PLACES, THINGS

PROSE = (
    "{name} walked slowly to the {place} and looked at the old {thing}.",
    "The morning was cold, and {name} thought of the {place} by the sea.",
    "Once there was a {adjective} {person} who lived near the {place}.",
    "{name} opened the {item} and found a letter from {other}.",
    "It rained all night, and the {person} waited under the {thing}.",
    "Nobody in the {place} knew why {name} kept the {item}.",
    "At last {name} smiled, took the {item}, and went home.",
    "The {person} told {name} a {adjective} story about the {thing}.",
)
MATHEMATICS = (
    "Let x be {a}. Then x plus {b} equals {sum}.",
    "The sum of {a} and {b} is {sum}.",
    "If x equals {a} then x minus {a} equals zero.",
    "A square with side {a} has four equal sides.",
    "The numbers {a} and {b} are both integers.",
    "We prove that {sum} minus {b} equals {a}.",
    "Suppose that y is greater than {b}. Then y is positive.",
    "The product of {a} and zero is zero.",
)
PROGRAMS = (
    "def {f}({x}, {y}):\n    return {x} + {y}\n",
    "for {x} in range({a}):\n    print({x})\n",
    "if {x} > {a}:\n    {y} = {x}\nelse:\n    {y} = {b}\n",
    "class {f}:\n    def __init__(self, {x}):\n        self.{x} = {x}\n",
    "while {x} < {a}:\n    {x} = {x} + {b}\n",
    "import {f}\n{x} = {f}.load({a})\n",
    "{x} = [{a}, {b}]\n{y} = len({x})\n",
    "{x} = {f}.load({a})\n{y} = max({x})\n",
    "try:\n    {x} = {f}({a})\nexcept ValueError:\n    {x} = None\n",
)
FUNCTIONS = "add count total load merge parse reset update".split()
VARIABLES = "x y n i k value item size".split()


def prose(random: np.random.Generator) -> str:
    """One sentence of a story."""
    return _one(PROSE, random).format(
        name=random.choice(NAMES),
        other=random.choice(NAMES),
        place=random.choice(PLACES),
        item=random.choice(OBJECTS),
        thing=THINGS[random.integers(len(THINGS))].singular,
        person=PEOPLE[random.integers(len(PEOPLE))].singular,
        adjective=random.choice(GOOD),
    )


def mathematics(random: np.random.Generator) -> str:
    """One mathematical statement, true."""
    a, b = (int(number) for number in random.integers(1, 50, 2))
    return _one(MATHEMATICS, random).format(a=a, b=b, sum=a + b)


def program(random: np.random.Generator) -> str:
    """A few lines of Python."""
    x, y = (str(name) for name in random.choice(VARIABLES, 2, replace=False))
    a, b = (int(number) for number in random.integers(1, 20, 2))
    return _one(PROGRAMS, random).format(f=random.choice(FUNCTIONS), x=x, y=y, a=a, b=b)


#: Texts by domain, under the names that scripts use.
DOMAINS: dict[str, Callable[[np.random.Generator], str]] = {
    "literature": prose,
    "mathematics": mathematics,
    "programming": program,
}


def _one(choices: tuple[str, ...], random: np.random.Generator) -> str:
    return choices[random.integers(len(choices))]
