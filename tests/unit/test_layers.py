"""Imports go downward only, and each third-party library lives behind one module."""

import ast
from pathlib import Path

import pytest

import estat

# From the bottom up. A module imports from rows below its own, never from its own row:
# siblings meet in the pipeline.
ROWS = [
    (
        "errors shared backoff offload serial_executor address forwarded ip_mode values log "
        "encoder mounts batcher audit cors write_keys excerpt bucket_values misspelt launch "
        "stores.head turns"
    ),
    "schema identity unread_body",
    "settings metrics files event clientip inflater form journal_file",
    (
        "leader dlq_owner ledger breaker buffer intake origin stream_lock stores.directory "
        "stores.role stores.object_options audit_content contradictions"
    ),
    "stores.s3 config",
    "journal stores reference server_directory raw_intake openapi request_body",
    "batch",
    "dlq_file salvage found",
    "delivery dlq",
    "capacity recount",
    "spool",
    "uploader",
    "sealer retrier recovery",
    "takeover",
    "collector fallback",
    "pipeline",
    "collect resources lifecycle answers plain_request",
    "app connection gunicorn_logger gunicorn_conf",
    "gunicorn_worker",
    "wsgi",
    "demo demo.resources",
    "demo.wsgi demo.gunicorn_conf",
    "cli.lock_table",
    (
        "cli.arguments cli.combined_log cli.http_post cli.progress cli.serve cli.refusals "
        "cli.journal_area cli.audit_target cli.audit_reader cli.health cli.headroom"
    ),
    "cli.dlq_files cli.demo cli.check",
    (
        "cli.send_tally cli.dlq_dry_run cli.dlq_ls cli.dlq_show cli.dlq_verify cli.dlq_export "
        "cli.dlq_rm cli.audit_disk"
    ),
    "cli.send_input cli.send_pool cli.dlq_replay cli.audit_report",
    "cli.audit_evidence",
    "cli.send cli.dlq cli.audit",
    "cli cli.main",
    "__main__",
]
ROW_OF = {module: row for row, modules in enumerate(ROWS) for module in modules.split()}

CONFINED = {
    "falcon": {"app", "collect", "request_body", "resources", "demo.resources"},
    "rjsmin": {"resources"},
    "boto3": {"stores.s3"},
    "botocore": {"stores.role", "stores.s3"},
    "prometheus_client": {"metrics"},
    "gunicorn": {"gunicorn_worker", "gunicorn_logger", "answers", "launch"},
    "isal": {"encoder", "inflater", "batch", "dlq_file", "journal_file"},
    "jsonschema_rs": {"schema"},
    "structlog": {"log"},
    "dotenv": {"config"},
}

PACKAGE = Path(estat.__file__).parent


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    del found["__init__"]
    return found


MODULES = modules()


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_its_row():
    assert set(MODULES) == set(ROW_OF)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward_only(module):
    for name in imported(MODULES[module]):
        other = name.removeprefix("estat.")
        around = other.startswith(f"{module}.") or module.startswith(f"{other}.")
        if name.startswith("estat.") and other in ROW_OF and not around:
            assert ROW_OF[other] < ROW_OF[module], f"{module} imports {other}"


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
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        and isinstance(node.value, ast.Name) and node.value.id == "os"
    }  # fmt: skip
    assert readers == {"config"}
