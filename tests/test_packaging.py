"""What is installed is what is in the tree, and every list of dependencies says the same."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OTHER_NAMES = {
    "dlib": "dlib-bin",
    "matplotlib-base": "matplotlib",
    "soxr-python": "soxr",
    "distributed": "dask",
}  # conda's -> PyPI's
NOT_PACKAGES = {".venv", "build", "tests", "bench", "docs"}


def requirement(text):
    """Name without extras, and the version bounds."""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_-]+)(?:\[[a-z0-9,]+\])?(.*)", text.strip()).groups()
    return OTHER_NAMES.get(name.lower(), name.lower()), bounds


def declared(*extras):
    lists = [PROJECT["project"]["dependencies"], *(PROJECT["project"]["optional-dependencies"][e] for e in extras)]
    return dict(requirement(r) for each in lists for r in each)


def test_package_list_names_every_folder_with_an_init():
    folders = {
        path.parent.relative_to(ROOT)
        for path in ROOT.rglob("__init__.py")
        if not NOT_PACKAGES & set(path.relative_to(ROOT).parts) and "site-packages" not in path.parts
    }
    expected = {".".join(("bmla", *folder.parts)) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_every_folder_with_modules_of_the_package_has_an_init():
    for top in ("store", "extract", "fuse", "commands"):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module.parent


def test_environment_yml_says_the_same_as_pyproject():
    lines = (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines()
    items = [line.strip().removeprefix("- ") for line in lines if line.strip().startswith("- ")]
    named = dict(requirement(item) for item in items if item not in ("pip:", "pip") and not item.startswith("python="))
    assert named == declared("demo")


def test_constraints_pin_every_dependency_within_its_bounds():
    from packaging.specifiers import SpecifierSet

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for name, bounds in declared("demo", "test", "dev").items():
        assert name in pins
        assert SpecifierSet(bounds).contains(pins[name]), f"{name} {pins[name]} is not {bounds}"
