"""The program that renders chat templates, in a process of its own: `python template_process.py`, one request a line.

A template is a stranger's program. Jinja's sandbox keeps it from Python's objects; that it can take neither the time nor the memory of whoever
asks is the business of this process, whose memory the system limits and which `chat_templates` ends after a while. It imports nothing of
NeuroScope, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

#: Bytes of this process, and characters of a rendered text.
MEMORY, LONGEST = 512 << 20, 16 << 20


class GenerationBlock(Extension):
    """`{% generation %} … {% endgeneration %}`: renders its content, in its own scope."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own name and kind

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_shown"), [], [], body).set_lineno(line)

    def _shown(self, caller: Callable[[], str]) -> str:
        return caller()


def environment() -> ImmutableSandboxedEnvironment:
    """A new environment for chat templates."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols])
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    made.filters["tojson"] = _to_json
    return made


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, **settings: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **settings})


@lru_cache(8)
def _compiled(source: str) -> Template:
    return environment().from_string(source)


def answered(line: str) -> dict[str, str]:
    """The answer to a request: `text`, or `error`."""
    try:
        request = json.loads(line)
        parts, size = [], 0
        for part in _compiled(request["template"]).generate(**request["context"]):
            size += len(part)
            if size > LONGEST:
                return {"error": f"the text is longer than {LONGEST >> 20} MiB"}
            parts.append(part)
        return {"text": "".join(parts)}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY >> 20} MiB of memory"}
    except Exception as error:  # a template may raise anything
        return {"error": (str(error).splitlines() or [type(error).__name__])[0][:500]}


def main() -> None:
    """Answer requests until the other end closes."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no limits
        import resource

        for kind, most in (("AS", MEMORY), ("FSIZE", 0), ("CORE", 0)):
            resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (most, most))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answered(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
