"""Prints how much code there is: ``make size``.

Code is counted in lines without blanks, comments and docstrings; a module's length and a
function's in all their lines. What is over a limit is named below the table.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

#: Lines of a module, and of a function.
MAX_MODULE, MAX_FUNCTION = 400, 40


class Size(NamedTuple):
    """Lines of one module."""

    code: int
    docstrings: int
    whole: int


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines on which docstrings stand."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        if ast.get_docstring(node):
            text = node.body[0]
            found.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return found


def size(source: str) -> Size:
    """Count one module."""
    documented = docstring_lines(ast.parse(source))
    lines = source.splitlines()
    code = sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in documented
        for number, line in enumerate(lines, 1)
    )
    return Size(code, len(documented), len(lines))


def long_functions(source: str) -> list[str]:
    """Return the names of functions that are over the limit."""
    return [
        f"{node.name}: {length} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION
    ]


def main() -> None:
    """Print the table and what is too long."""
    print(f"{'':8}{'modules':>9}{'code':>9}{'docstrings':>12}{'lines':>9}")
    too_long: list[str] = []
    skipped = 0
    for top in ("estat", "bench", "tests"):
        sizes = []
        for path in sorted(Path(top).rglob("*.py")):
            source = path.read_text()
            sizes.append(size(source))
            skipped += len(re.findall(r"# fmt: (?:skip|off)", source))
            if top != "tests":
                too_long += [f"{path}: {sizes[-1].whole} lines"] * (sizes[-1].whole > MAX_MODULE)
                too_long += [f"{path}: {found}" for found in long_functions(source)]
        code, docstrings, whole = (sum(column) for column in zip(*sizes, strict=True))
        print(f"{top:8}{len(sizes):>9,}{code:>9,}{docstrings:>12,}{whole:>9,}")
    docs = [*Path("docs").rglob("*.md"), *Path().glob("*.md")]
    words = sum(len(path.read_text().split()) for path in docs)
    print(f"{'docs':8}{len(docs):>9,}{words:>30,} words")
    print(f"suppressed formattings: {skipped}")
    print("\n".join(["", *too_long]))


if __name__ == "__main__":
    main()
