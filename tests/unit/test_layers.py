"""Imports go one way between packages, and each third-party library lives behind few modules."""

import ast
from pathlib import Path

import pytest

import estat

# From the bottom up, as CONTRIBUTING.md lists them. A package imports from rows above its own.
ORDER = [
    "text",  # single modules that everything may use
    "errors log threads",
    "events",
    "config",
    "accounting",
    "disk",
    "stores",
    "pipeline",
    "audit",
    "web",
    "server",
    "wsgi gunicorn_conf",  # what gunicorn is started with
    "demo",
    "cli",
    "__main__",
]
ROW_OF = {name: row for row, names in enumerate(ORDER) for name in names.split()}

CONFINED = {
    "falcon": {"demo.resources", "web.app", "web.collect", "web.resources"},
    "rjsmin": {"web.resources"},
    "boto3": {"stores.s3"},
    "botocore": {"stores.s3", "stores.s3_credentials", "stores.s3_errors", "stores.s3_sources"},
    "prometheus_client": {"accounting.exposition"},
    "gunicorn": {
        "server.arbiter",
        "server.chunks",
        "server.connection",
        "server.drain",
        "server.hooks",
        "server.launch",
        "server.logger",
        "server.responses",
        "server.unread_body",
        "server.worker",
    },
    "isal": {"disk.dlq_file", "disk.journal_file", "events.batch", "events.gzip"},
    "jsonschema_rs": {"events.schema"},
    "dotenv": {"config.loading"},
}

ROOT = Path(estat.__file__).parent


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    del found["__init__"]
    return found


MODULES = modules()
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def imported(tree: ast.Module) -> set[str]:
    """Return the full names of modules, and of what is taken out of them."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(names: set[str]) -> set[str]:
    """Return the packages and single modules of ours among names."""
    parts = [name.split(".") for name in names if name.startswith("estat.")]
    return {part[1] for part in parts if part[1] in ROW_OF}


def test_every_package_has_its_row():
    single = {name for name in MODULES if "." not in name}
    assert set(ROW_OF) == single


def test_at_most_eight_modules_lie_outside_of_packages():
    assert len(list(ROOT.glob("*.py"))) <= 8


@pytest.mark.parametrize("package", ROW_OF)
def test_imports_go_one_way(package):
    for module, tree in MODULES.items():
        if module.split(".")[0] == package:
            for other in rooms(imported(tree)) - {package}:
                assert ROW_OF[other] < ROW_OF[package], f"{module} imports {other}"


def test_no_package_uses_what_another_one_keeps_to_itself():
    for module, tree in MODULES.items():
        for name in imported(tree):
            _, package, *inner = [*name.split("."), "", ""][:4]
            if name.startswith("estat.") and package != module.split(".")[0]:
                assert not any(part.startswith("_") for part in inner), f"{module}: {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_at_its_head_what_lives_there(package):
    text = ast.get_docstring(MODULES[package]) or ""
    assert len(text.splitlines()) >= 3, package


@pytest.mark.parametrize("library", CONFINED)
def test_a_library_is_imported_where_it_belongs(library):
    users = {
        module
        for module, tree in MODULES.items()
        if any(name.split(".")[0] == library for name in imported(tree))
    }
    assert users == CONFINED[library]


def test_the_environment_is_read_in_one_place():
    readers = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    assert readers == {"config.loading"}
