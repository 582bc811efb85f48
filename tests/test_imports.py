"""What importing costs: `urbandet --help` must answer at once."""

import subprocess
import sys

HEAVY = (
    "numpy",
    "ray",
    "tensorflow",
    "cv2",
    "av",
    "pyarrow",
    "boto3",
    "pydantic",
    "PIL",
    "ai_edge_litert",
)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after the statement."""
    code = f"import sys; {statement}; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_and_its_cli_loads_nothing_heavy() -> None:
    """Neither Ray nor TensorFlow, nor even NumPy."""
    loaded = loaded_by("import urbandet_ray, urbandet_ray.cli")
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


def test_help_loads_nothing_heavy() -> None:
    """A person who asks what there is waits for typer alone."""
    asked = (
        "import sys, atexit; sys.argv = ['urbandet', '--help']; "
        "atexit.register(lambda: print('LOADED', *{m.split('.')[0] for m in sys.modules})); "
        "from urbandet_ray.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    shown, loaded = done.stdout.split("LOADED")
    assert "infer" in shown
    assert "typer" in loaded.split()
    assert not set(loaded.split()) & set(HEAVY)


def test_inference_without_tensorflow() -> None:
    """A TFLite run never pays TensorFlow's start, on the driver or in an actor."""
    loaded = loaded_by("import urbandet_ray.commands.infer, urbandet_ray.inference.actor")
    assert "pyarrow" in loaded
    assert not loaded & {"tensorflow", "tf_keras", "object_detection"}


def test_public_functions_are_reachable() -> None:
    """The three names of the Python API resolve, others say so."""
    import urbandet_ray

    assert all(callable(getattr(urbandet_ray, name)) for name in ("infer", "evaluate"))
    assert callable(urbandet_ray.make_video)
    assert not hasattr(urbandet_ray, "train_model_please")
