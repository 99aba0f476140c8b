"""Command lines without options: the short way gives what argparse gives."""

from __future__ import annotations

import pytest

from dlwhy.cli.arguments import COMMANDS, build
from dlwhy.cli.plain import plain


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("operands", [["one"], ["now:./a.so", "b.so"], [""], ["pid:7"], ["check"]])
def test_the_short_way_is_the_parsers(command: str, operands: list[str]) -> None:
    """Every option has the value that the parser gives it, and the operands are the same."""
    found = plain([command, *operands])
    if found is None:
        assert command == "capture" or (command, len(operands)) in (("tree", 2), ("diff", 1))
        return
    parsed = vars(build(command).parse_args(operands))
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in vars(found).items()} == parsed


@pytest.mark.parametrize(
    "words",
    [[], ["check"], ["--help"], ["tls", "--sysroot", "/", "a"], ["tree", "a", "-v"], ["check", "--", "a"], ["say"]],
)
def test_everything_else_is_the_parsers(words: list[str]) -> None:
    """An option, a missing operand and an unknown command are left to the parser."""
    assert plain(words) is None
