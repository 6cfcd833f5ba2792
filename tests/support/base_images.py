"""Stand-ins for the images that the Dockerfile builds on, and buildah, which builds.

Made of Debian 12 with debootstrap, from the mirror that this host's apt uses. One tree gives
both: the image for the build stage is the tree with pip; the one that ships has what the packages
of the distroless Python image have, so no shell, no package manager and no C library's tools.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from tests.support.server import ROOT

SUITE = "bookworm"
PYTHON = "3.11"

REQUIREMENTS = ROOT / "conf" / "image" / "requirements.txt"

# The packages of gcr.io/distroless/python3-debian12; those of them that are in the tree.
# https://github.com/GoogleContainerTools/distroless, static, base, cc and python3
_SHIPPED = {
    "base-files",
    "libbz2-1.0",
    "libc6",
    "libcom-err2",
    "libcrypt1",
    "libdb5.3",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libgomp1",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "liblzma5",
    "libncursesw6",
    "libnsl2",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libreadline8",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libtinfo6",
    "libtirpc3",
    "libuuid1",
    "netbase",
    "python3.11-minimal",
    "tzdata",
    "zlib1g",
}
#: What compiles is only in the image for the build stage.
_PACKAGES = f"python{PYTHON},libpython{PYTHON}-dev,gcc,libc6-dev"
_MERGED = ("bin", "lib", "lib64", "sbin")  # links into /usr

#: What the Dockerfile calls them.
_ARGUMENT = re.compile(r"(?m)^ARG (BUILD_IMAGE|RUNTIME_IMAGE)=(\S+)$")
NAMES = dict(_ARGUMENT.findall((ROOT / "Dockerfile").read_text()))


class Buildah:
    """buildah with a storage of its own, which is as large as all its images and containers."""

    def __init__(self, directory: Path) -> None:
        configuration = directory / "storage.conf"
        configuration.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{directory}/graph"\n'
            f'runroot = "{directory}/run"\n'
        )
        self.environ = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(configuration),
            "BUILDAH_ISOLATION": "chroot",
        }

    def __call__(self, *arguments: str | Path) -> str:
        """Run a command of buildah's; return what it prints."""
        return run("buildah", *arguments, env=self.environ).strip()

    def new_root(self, image: str = "scratch") -> tuple[str, Path]:
        """Return a new container's name and its root."""
        name = self("from", "--pull-never", image)
        return name, Path(self("mount", name))

    def configuration(self, image: str) -> dict[str, Any]:
        """Return what an image says about how to run it."""
        found = json.loads(self("inspect", "--type", "image", image))
        configuration: dict[str, Any] = found["Docker"]["config"]
        return configuration


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end and return its output; with another status than 0 fail."""
    done = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def make_base_images(buildah: Buildah, wheels: Path) -> None:
    """Commit both images under the names that the Dockerfile uses."""
    build, tree = buildah.new_root()
    dpkg = tree / "etc/dpkg/dpkg.cfg.d/quick"
    dpkg.parent.mkdir(parents=True)
    dpkg.write_text("force-unsafe-io\n")  # no sync for each file
    run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", SUITE, tree, _mirror())
    run("sh", "-c", "rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc/*", cwd=tree)
    (tree / "usr/bin/python3").symlink_to(f"python{PYTHON}")

    runtime, root = buildah.new_root()
    _copy_packages(tree, root)
    (root / "usr/bin/python3").symlink_to(f"python{PYTHON}")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/sbin/nologin\n"
        "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
    )
    for directory, mode, owner in (("tmp", 0o1777, 0), ("home/nonroot", 0o700, 65532)):
        (root / directory).mkdir(parents=True, exist_ok=True)
        (root / directory).chmod(mode)
        os.chown(root / directory, owner, owner)

    pip = next(wheels.glob("pip-*.whl"))
    zipfile.ZipFile(pip).extractall(tree / f"usr/local/lib/python{PYTHON}/dist-packages")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    for container, name in ((build, NAMES["BUILD_IMAGE"]), (runtime, NAMES["RUNTIME_IMAGE"])):
        buildah("config", "--env", f"PATH={path}", "--env", "LANG=C.UTF-8", container)
        buildah("commit", "--quiet", "--rm", container, name)


def download_wheels(wheels: Path) -> None:
    """Fetch what goes into the image, as pip of this host is set up to; and what builds it."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={wheels}")
    pip += ("--only-binary=:all:", f"--python-version={PYTHON}")
    run(*pip, "pip")
    for pins in (REQUIREMENTS, REQUIREMENTS.with_name("build.txt")):
        run(*pip, f"--requirement={pins}")


def _copy_packages(tree: Path, root: Path) -> None:
    """Copy the files of the packages that the distroless image has."""
    for link in _MERGED:
        if (tree / link).is_symlink():
            (root / link).symlink_to(f"usr/{link}")
            (root / "usr" / link).mkdir(parents=True)
    names = []
    for listing in sorted((tree / "var/lib/dpkg/info").glob("*.list")):
        if listing.stem.split(":")[0] in _SHIPPED:
            names += [f".{line}" for line in listing.read_text().splitlines() if line != "/."]
    names = [name for name in dict.fromkeys(names) if os.path.lexists(tree / name)]
    archive = subprocess.run(
        ["tar", "--create", "--no-recursion", "--files-from=-"],
        cwd=tree,
        input="\n".join(names).encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    subprocess.run(["tar", "--extract"], cwd=root, input=archive.stdout, timeout=60, check=True)


def _mirror() -> str:
    """Return where this host's apt gets Debian from."""
    listed = run(
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    )
    mirrors = [line.split()[2] for line in listed.splitlines() if line.startswith("Debian main ")]
    mirrors = [mirror for mirror in mirrors if "security" not in mirror]
    return mirrors[0] if mirrors else "http://deb.debian.org/debian"
