"""Docker's own parser, in a process of its own.

It is Go's, and brings Go's runtime along: in a process that also holds Ray and TensorFlow, the
tests' own died in it without a word.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

_SCRIPT = """
import json, sys
import dockerfile
try:
    commands = dockerfile.parse_string(sys.stdin.read())
except dockerfile.GoParseError as error:
    print(json.dumps({"error": str(error)}))
else:
    names = ("cmd", "start_line", "value", "flags", "json")
    told = [{name: getattr(one, name) for name in names} for one in commands]
    print(json.dumps({"commands": told, "known": dockerfile.all_cmds()}))
"""


class DockerfileError(Exception):
    """The text is no Dockerfile."""


@dataclass(frozen=True)
class Command:
    """An instruction.

    Attributes:
        cmd: its name, as it is written.
        start_line: from 1.
        value, flags: its arguments; `--from=...` and the like.
        json: whether the arguments are written as a list.
        is_known: whether Docker has such an instruction.
    """

    cmd: str
    start_line: int
    value: tuple[str, ...]
    flags: tuple[str, ...]
    json: bool
    is_known: bool


def parse_dockerfile(text: str) -> list[Command]:
    """The instructions of a Dockerfile.

    Raises:
        DockerfileError: Docker's parser refuses it.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], input=text, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    if "error" in told:
        raise DockerfileError(told["error"])
    return [
        Command(
            one["cmd"],
            one["start_line"],
            tuple(one["value"]),
            tuple(one["flags"]),
            bool(one["json"]),
            one["cmd"].lower() in told["known"],
        )
        for one in told["commands"]
    ]
