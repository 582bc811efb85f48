"""A job as it is asked for: which script, which run config, from which working directory."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from urbandet_ray.config import EvalConfig, InferConfig, TrainConfig, VideoConfig, load_config
from urbandet_ray.errors import ConfigError
from urbandet_ray.launch.secrets import flat, forwarded, refuse_secrets

RunConfig = TrainConfig | InferConfig | EvalConfig | VideoConfig

JOBS: dict[str, tuple[str, type[RunConfig]]] = {
    "train": ("jobs/train.py", TrainConfig),
    "infer": ("jobs/batch_infer.py", InferConfig),
    "evaluate": ("jobs/evaluate.py", EvalConfig),
    "video": ("jobs/make_video.py", VideoConfig),
}

EXCLUDED = (
    ".git",
    ".venv",
    "__pycache__",
    "/runs/",
    "/demo/",
    "/data/",
    "/models/",
    ".env*",
    ".aws/",
    ".ssh/",
    ".netrc",
    "*.pem",
    "*.key",
)
"""What is not sent, in the language of .gitignore, which Ray honours too. Records and models belong
on S3; the last ones are where people keep keys."""


INSTALL_TIMEOUT_S = 1800
"""How long the packages of the lock files may take to install on a node; Ray's own is 600."""


@dataclass(frozen=True)
class Order:
    """What `urbandet submit` was asked for.

    Attributes:
        kind: a key of JOBS.
        run_config: YAML, relative to the working directory; None is the defaults alone.
        overrides: `key=value`, as they were given.
        working_dir: what is sent; the checkout.
        python: the interpreter's name on the cluster.
        install: the packages of the lock files are installed for the job.
    """

    kind: str
    run_config: str | None = None
    overrides: tuple[str, ...] = ()
    working_dir: Path = Path()
    python: str = "python"
    install: bool = False

    def config(self) -> RunConfig:
        """The run config, read here.

        Raises:
            ConfigError: it cannot be used.
        """
        path = self.working_dir / self.run_config if self.run_config else None
        return load_config(JOBS[self.kind][1], path, self.overrides)

    @property
    def settings(self) -> list[str]:
        """What follows the script: the YAML and the overrides."""
        return [*([self.run_config] if self.run_config else []), *self.overrides]

    @property
    def entrypoint(self) -> str:
        """The job's command, as `ray job submit -- ...` would be given it."""
        return shlex.join([self.python, JOBS[self.kind][0], *self.settings])

    def command(self, address: str) -> str:
        """The command that submits it again."""
        extra = ["--install"] if self.install else []
        where = str(self.working_dir)
        extra += [] if where == "." else ["--working-dir", where]
        extra += [] if self.python == "python" else ["--python", self.python]
        words = ["urbandet", "submit", self.kind, *self.settings, "--address", address, *extra]
        return shlex.join(words)


def read_order(arguments: Sequence[str], kind: str | None = None) -> Order:
    """An order from the words of a command line.

    Args:
        arguments: in any order a kind (where `kind` is None), a YAML, and `key=value` overrides.

    Raises:
        ConfigError: a word too many, or no kind and none that the run config shows.
    """
    words = [word for word in arguments if "=" not in word]
    named = [word for word in words if word in JOBS] if kind is None else [kind]
    files = [word for word in words if word not in JOBS or kind is not None]
    if len(files) > 1 or len(named) > 1 or (named and named[0] not in JOBS):
        raise ConfigError(
            f"cannot make sense of {' '.join(words) if kind is None else kind}: expected one of "
            f"{', '.join(JOBS)}, at most one run config (YAML), and key=value overrides"
        )
    overrides = tuple(word for word in arguments if "=" in word)
    order = Order(named[0] if named else "infer", files[0] if files else None, overrides)
    return order if named else replace(order, kind=_kind_of(order))


def _kind_of(order: Order) -> str:
    """The only kind whose config takes the settings."""
    fits, told = [], ""
    for kind in JOBS:
        try:
            replace(order, kind=kind).config()
            fits.append(kind)
        except ConfigError as error:
            told = told or str(error)
    if len(fits) == 1:
        return fits[0]
    if not order.run_config:
        raise ConfigError(f"which job? Add one of {', '.join(JOBS)}")
    raise ConfigError(
        f"{order.run_config} does not show which job it is for: add one of {', '.join(JOBS)}"
    )


def check_working_dir(order: Order) -> None:
    """See that what the job needs is there and is sent.

    Raises:
        ConfigError: the script or the YAML is missing, outside, or among what is not sent.
    """
    root, script = order.working_dir.absolute(), JOBS[order.kind][0]
    if not (root / script).is_file():
        raise ConfigError(
            f"no {script} in {root}: run this in a checkout, or give it with --working-dir"
        )
    if order.run_config is None:
        return
    path = Path(order.run_config)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"{path} is not below the working directory {root}, which is what the job gets: copy "
            "it there, and give it relative to it"
        )
    if not is_sent(order.run_config):
        raise ConfigError(
            f"{path} is not sent with the job (of the working directory, {', '.join(EXCLUDED)} "
            "stay here): move it to configs/runs"
        )


def is_sent(relative: str) -> bool:
    """Whether a path of the working directory is part of what a job gets; .gitignore aside."""
    parts = Path(relative).parts
    for pattern in EXCLUDED:
        name = pattern.strip("/")
        looked = parts[:1] if pattern.startswith("/") else parts
        if any(fnmatch(part, name) for part in looked):
            return False
    return True


def told_too_large(root: Path) -> str:
    """What to do about a working directory of more bytes than Ray takes."""
    sizes = {top.name: _bytes_sent(root, top) for top in root.iterdir() if is_sent(top.name)}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    told = ", ".join(f"{name} ({sizes[name] / 2**20:,.0f} MiB)" for name in largest)
    return (
        f"{root.absolute()} is more than Ray takes as a working directory. Largest in it: {told}. "
        "What .gitignore names is not sent, though it may be counted here, nor is what lies in "
        "runs/: keep there what the job does not need"
    )


def _bytes_sent(root: Path, top: Path) -> int:
    """Of a file, or of all below a folder; links below it are not followed."""
    files = [top] if top.is_file() else [Path(at) / f for at, _, fs in os.walk(top) for f in fs]
    sent = (file for file in files if is_sent(str(file.relative_to(root))))
    return sum(file.stat().st_size for file in sent if file.is_file())


def check_secrets(order: Order, config: RunConfig | None, environ: Mapping[str, str]) -> None:
    """Refuse keys in the overrides and in what the YAML sets.

    Raises:
        ConfigError: names the setting, never the value.
    """
    refuse_secrets(order.overrides, environ)
    if config is not None:
        values = flat(config.model_dump(mode="json", exclude_unset=True))
        texts = [f"{key}={one}" for key, one in values if isinstance(one, str | list)]
        refuse_secrets(texts, environ)


def runtime_env(order: Order, environ: Mapping[str, str]) -> dict[str, Any]:
    """The job's environment: the working directory, where S3 is, and packages where asked for.

    Raises:
        ConfigError: a forwarded variable holds a password, or a lock file is missing.
    """
    env: dict[str, Any] = {
        "working_dir": str(order.working_dir.absolute()),
        "excludes": list(EXCLUDED),
    }
    if variables := forwarded(environ):
        env["env_vars"] = variables
    if order.install:
        env["config"] = {"setup_timeout_seconds": INSTALL_TIMEOUT_S}
        env["pip"] = _locked_packages(order.working_dir, ("all.lock", "odapi.lock"))
    return env


def _locked_packages(root: Path, locks: Sequence[str]) -> dict[str, Any]:
    """pip by the lock files within the working directory.

    The files stay out of the spec, which every worker's command line repeats. Their digest is in
    it, as a comment, since Ray keeps an environment by its spec.
    """
    digest, lines = hashlib.sha256(), []
    for name in locks:
        try:
            digest.update((root / "requirements" / name).read_bytes())
        except OSError as error:
            raise ConfigError(
                f"--install needs requirements/{name} in {root.absolute()}: {error.strerror}"
            ) from None
        lines.append(f"-r ${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/requirements/{name}")
    return {
        "packages": [*lines, f"# {digest.hexdigest()}"],
        "pip_install_options": [
            "--require-hashes",
            "--no-deps",  # the locks hold every package; the OD API's metadata asks for too much
            "--disable-pip-version-check",
            "--no-cache-dir",
        ],
    }
