"""See to the programs that the tests start and pip does not bring; says in one sentence what to do.

As root on Debian or Ubuntu it installs what is missing; elsewhere it names what to install.
"""

import os
import shutil
import subprocess

#: Program -> Debian package.
WANTED = {
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "npm": "npm",
    # Its library moves the wall clock of one process.
    "faketime": "faketime",
}

#: For the browser: without any font its pictures show boxes.
FONTS = "fonts-dejavu-core"


def missing() -> "list[str]":
    """Return the packages of the programs that are not there."""
    return sorted({package for program, package in WANTED.items() if not shutil.which(program)})


def main() -> None:
    """Install what is missing, or say how to."""
    packages = missing()
    if not packages:
        return
    names = " ".join(packages)
    sentence = (
        "The tests need programs that are not here: install them with "
        "`sudo apt-get install %s` (on other systems, their packages of the same name)." % names
    )
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(sentence)
    print("Installing %s with apt-get (once) ..." % names, flush=True)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    # Nothing that a package starts by itself is wanted here: the tests start their own.
    for command in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", *packages, FONTS],
    ):
        subprocess.call(["apt-get", *command], env=environment, stdout=subprocess.DEVNULL)
    if missing():
        raise SystemExit(sentence)


if __name__ == "__main__":
    main()
