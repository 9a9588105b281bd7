"""Things by name in any spelling."""

from __future__ import annotations

import pytest

from neuroscope.errors import ArgumentError, TaskNotFoundError
from neuroscope.names import Names, only


def test_any_spelling_finds_a_thing() -> None:
    names = Names("method", {"eap_ig": 1, "exact": 2}, aliases={"integrated": "eap_ig"}, listing="Methods")
    assert [names[spelling] for spelling in ("eap_ig", "eapIg", "EAP-IG", " eapIG ", "integrated", "Integrated")] == [1] * 6
    assert names.name("exact") == "exact"
    assert ("EXACT" in names, "other" in names, names.find("other"), list(names)) == (True, False, None, ["eap_ig", "exact"])


def test_an_unknown_name_says_which_is_near_and_what_else_would_be_right() -> None:
    names = Names("task", {"addition": 1}, listing="Tasks", error=TaskNotFoundError, more="Or your own.")
    with pytest.raises(TaskNotFoundError, match="There is no task 'additon'") as caught:
        names["additon"]
    assert caught.value.remedy == "Did you mean 'addition'? Or your own."
    with pytest.raises(ArgumentError) as other:
        only("rule", ("midpoint", "paper"), listing="Rules")["nothing like it"]
    assert other.value.remedy == "Rules: midpoint, paper."
