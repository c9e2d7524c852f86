"""What ``pyproject.toml`` cannot say of the package: its results, its description, and its address if it has one."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SECTIONS = ("The package", "On a GPU, and on full data", "Licence and citation")


class BuildWithResults(build_py):
    """Copy the committed results into the package, where ``bnlib`` looks for them."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        if not self.editable_mode:
            for name in ("frameworks.json", "ported_networks.json"):
                shutil.copy(HERE / "data" / name, Path(self.build_lib, "bnlib", name))
            shutil.copytree(HERE / "data" / "results", Path(self.build_lib, "bnlib", "results"), dirs_exist_ok=True)


def address() -> str:
    """Return the address of the public repository in ``_config.yml``, or nothing."""
    return re.search(r'^repository:\n(?:  .*\n)*?  url: (?:&\w+ )?"(.*)"', (HERE / "_config.yml").read_text(), re.M)[1]


def project_urls() -> dict[str, str]:
    """Return the addresses of the repository and of the site, if there are any; reports of the doctor link to it."""
    site = re.search(r'^  baseurl: "(.*)"', (HERE / "_config.yml").read_text(), re.M)[1]
    named = {"Source": address(), "Changelog": f"{address()}/blob/HEAD/CHANGELOG.md"} if address() else {}
    return {**named, "Documentation": site} if site else named


def description() -> str:
    """Return what ``README.md`` says of the package, without links into the repository unless it has an address."""
    start, *sections = re.split(r"^## (.*)\n", (HERE / "README.md").read_text(), flags=re.M)
    named = dict(zip(sections[::2], sections[1::2], strict=True))
    text = re.sub(r"^!\[.*\n", "", start, flags=re.M) + "".join(f"## {name}\n{named[name]}" for name in SECTIONS)
    target = rf"[\1]({address()}/blob/HEAD/\2)" if address() else r"\1"
    return re.sub(r"\[([^]]*)\]\((?!https?:)([^)]*)\)", target, text)


setup(
    cmdclass={"build_py": BuildWithResults},
    long_description=description(),
    long_description_content_type="text/markdown",
    project_urls=project_urls(),
)
