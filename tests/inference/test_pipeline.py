"""How many actors a cluster has room for, and what is said where there is no cluster."""

import socket
import subprocess
import sys

from waiting import END_S


def test_an_address_where_nothing_listens_is_said_at_once() -> None:
    """Ray itself tries for minutes. In a process of its own: this one may have a Ray already."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port either
        address = f"127.0.0.1:{held.getsockname()[1]}"
        code = (
            "from urbandet_ray.config import RayConfig as C\n"
            "from urbandet_ray.inference.session import ray_session as r\n"
            f"with r(C(address={address!r})): 0"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=END_S
        )
    assert f"RunError: no Ray cluster answers at {address}" in done.stderr
