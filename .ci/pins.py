"""Writes what the image is made of, and with, to conf/image: ``make pins``.

Each file names the newest versions that setup.cfg and pyproject.toml allow, with the SHA-256 of the
wheels for Debian 12 with Python 3.11. pip resolves and hashes them without installing anything, and
from whatever index it is set up to ask, of which nothing is written down.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from setuptools import build_meta

PROCESSORS = ("x86_64", "aarch64")
#: The versions of glibc that wheels are made for, up to Debian 12's 2.36.
GLIBC = ("2014", "_2_17", "_2_24", "_2_27", "_2_28", "_2_31", "_2_34", "_2_35", "_2_36")
BACK_END = tomllib.loads(Path("pyproject.toml").read_text())["build-system"]["requires"]
os.environ["ESTAT_COMPILE"] = "1"
BUILD = [*BACK_END, *build_meta.get_requires_for_build_wheel(), "cyclonedx-bom>=7.5,<8"]
FILES = {
    "requirements.txt": ("What the image is made of.", [".[schema]"]),
    "build.txt": ("What builds it and lists its parts.", BUILD),
}


def resolve(processor: str, requirements: list[str]) -> dict[str, str]:
    """Return the SHA-256 of each wheel that pip would install, by NAME==VERSION."""
    platforms = [f"--platform=manylinux{glibc}_{processor}" for glibc in reversed(GLIBC)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report=-"]
    command += ["--ignore-installed", "--target=build/nowhere", "--only-binary=:all:"]
    command += ["--implementation=cp", "--python-version=3.11", *platforms, *requirements]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {
        "{name}=={version}".format_map(each["metadata"]): archive["hashes"]["sha256"]
        for each in report["install"]
        if (archive := each["download_info"].get("archive_info"))
    }


def main() -> None:
    """Write the files; end with a sentence where the processors get different versions."""
    for name, (title, requirements) in FILES.items():
        x86, arm = (resolve(processor, requirements) for processor in PROCESSORS)
        if differing := sorted(x86.keys() ^ arm.keys()):
            sys.exit(f"{name}: not the same for both processors: {', '.join(differing)}")
        lines = [
            " ".join([pin, *sorted({f"--hash=sha256:{each[pin]}" for each in (x86, arm)})])
            for pin in sorted(x86, key=str.lower)
        ]
        head = f"# {title} Written by make pins."
        Path("conf/image", name).write_text("\n".join([head, *lines, ""]))


if __name__ == "__main__":
    main()
