"""What every command has: help with examples, exit codes, `-q`, colour where it belongs, completion."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.commands import cli, completion, usage
from tests.conftest import NOT_RUN
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

PARSER = cli.make_parser(lambda _: True)
ENVIRON = {"PATH": os.environ["PATH"], "PYTHONPATH": REPOSITORY, "SIF_WRITABLE": "off"}


def parsers(parser: argparse.ArgumentParser = PARSER, words: str = "") -> dict[str, argparse.ArgumentParser]:
    """Map each command, such as ``cache list``, to its parser."""
    found = {words: parser}
    for action in parser._actions:
        for name, own in action.choices.items() if isinstance(action.choices, dict) else ():
            found.update(parsers(own, f"{words} {name}".lstrip()))
    return found


PARSERS = parsers()


@pytest.mark.parametrize("command", PARSERS)
def test_help_ends_with_two_examples_the_exit_codes_and_the_documentation(command: str) -> None:
    page = PARSERS[command].format_help()
    _, _, end = page.partition("\nexamples:\n")
    assert sum(line.startswith("  ") and not line.startswith("   ") for line in end.splitlines()) == 2
    assert "exit codes: " in end
    assert end.endswith(f"documentation: {usage.DOCUMENTATION}\n")
    assert all(len(line) <= 80 for line in page.partition("\nexamples:\n")[0].splitlines())
    assert "-q, --quiet" in page
    examples = [line for line in end.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    assert all("sif-writable " in line for line in examples)


def test_commands_that_run_another_show_how() -> None:
    for command in ("run", "trace", "prestage"):
        assert PARSERS[command].format_usage().endswith(f"{command} [options] -- CMD [ARGUMENT...]\n")


@pytest.mark.parametrize("command", PARSERS)
def test_each_example_is_understood(command: str) -> None:
    for words, _ in usage.PAGES[command].examples:
        plain = words.partition("$(sif-writable ")[2].partition(")")[0] or words
        for mark in (" | ", " || ", " > "):
            plain = plain.partition(mark)[0]
        arguments = PARSER.parse_args(shlex.split(plain))
        assert arguments.parser is PARSERS[command] or command in ("", arguments.command)


def test_the_address_is_that_of_the_project() -> None:
    with open(f"{REPOSITORY}/pyproject.toml", encoding="utf-8") as file:
        assert f'Documentation = "{usage.DOCUMENTATION}"\n' in file


def test_quiet_counts_before_a_command_and_after_it() -> None:
    for words in (["-q", "status"], ["status", "-q"], ["cache", "-q", "list"], ["--quiet", "cache", "list"]):
        assert PARSER.parse_args(words).quiet is True
    for words in (["status"], ["cache", "list"]):
        assert PARSER.parse_args(words).quiet is False


def test_every_shell_that_is_meant_is_accepted() -> None:
    for command in ("env", "attach"):
        for shell, syntax in (("bash", "sh"), ("zsh", "sh"), ("tcsh", "csh"), ("fish", "fish"), ("sh", "sh")):
            assert PARSER.parse_args([command, "--shell", shell]).shell == syntax


def on_a_terminal(*words: str, **environ: str) -> str:
    """Return what a command prints on a terminal."""
    master, slave = pty.openpty()
    program = [sys.executable, "-m", "sif_writable", *words]
    env = {**ENVIRON, "TERM": "xterm", **environ}
    with subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=slave, env=env):
        os.close(slave)
        found = b""
        try:
            while part := os.read(master, 4096):
                found += part
        except OSError:  # the end of a terminal
            pass
    os.close(master)
    return found.decode()


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=str,
)
def test_colour_is_for_terminals_and_for_those_who_want_it(
    tmp_path: Path, environ: dict[str, str], coloured: bool
) -> None:
    output = on_a_terminal("status", "--no-gpu", HOME=str(tmp_path), **environ)
    assert ("\033[" in output) == coloured
    assert "sif_writable" in output


def test_quiet_leaves_out_what_is_right(tmp_path: Path) -> None:
    program = """
import sys
from sif_writable.commands.cli import main
for words in (["status"], ["doctor"], ["cache", "list"], ["prepare", "--check"]):
    for more in ([], ["-q"]):
        print("--", *words, *more)
        try:
            main([*words, *more])
        except SystemExit:
            pass
"""
    env = {**ENVIRON, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    outputs = dict(part.split("\n", 1) for part in done.stdout.split("-- ")[1:])
    assert "PASS" in outputs["doctor"]
    assert not {"PASS", "INFO"} & set(outputs["doctor -q"].split())
    assert len(outputs["status"].splitlines()) > len(outputs["status -q"].splitlines())
    assert "stale" in outputs["prepare --check -q"]


LINES = [
    ("sif-writable st", {"status"}),
    ("sif-writable cache ", {"list", "prune", "clear", "forget"}),
    ("sif-writable cache prune --de", {"--dead"}),
    ("sif-writable completion ", {"bash", "zsh", "fish"}),
    ("sif-writable env --shell z", {"zsh"}),
    ("sif-writable trace --s", {"--save"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the file for each shell."""
    folder = tmp_path_factory.mktemp("completion")
    known = completion.levels(PARSER)
    for shell, make in (("bash", completion.bash), ("zsh", completion.zsh), ("fish", completion.fish)):
        (folder / shell).write_text(make(known))
    return {shell: str(folder / shell) for shell in completion.SHELLS}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_shell_completes_commands_options_and_values(scripts: dict[str, str], tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{NOT_RUN}{shell} is not installed")
    ask = {
        "bash": "COMP_WORDS=({words}{last}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); _sif_writable; "
        'echo "${{COMPREPLY[*]}}"',
        "fish": "complete -C '{line}' | string replace -r '\t.*' '' | string join ' '",
        "zsh": "words=({words}{last}); CURRENT=$#words; compadd() {{ shift; print -- $@ }}; _sif_writable",
    }[shell]
    lines = ["compdef() { : }"] if shell == "zsh" else []
    lines.append(f"source {scripts[shell]}")
    for line, _ in LINES:
        lines.append(ask.format(line=line, words=line, last=" ''" if line.endswith(" ") else ""))
    program = [shell, "-f"] if shell == "zsh" else [shell]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        program, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    offered = [set(line.split()) for line in done.stdout.splitlines()]
    assert len(offered) == len(LINES), done
    for (line, wanted), found in zip(LINES, offered):
        assert wanted <= found, (line, done)
        assert shell == "zsh" or len(found) <= len(wanted) + 4, line
