"""Build steps that pyproject.toml cannot express: the files beside `portal/` travel inside the
wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
BUNDLED = ("templates", "static", "migrations", "examples")


class BuildWithResources(build_py):
    """Copies the resource folders to `portal/bundled/`, where `portal.resources` looks for them
    first.

    An editable install copies nothing: it runs on the checkout, which has the folders themselves.
    """

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        # What an earlier build left there would travel along, even if it was renamed or deleted
        # since.
        shutil.rmtree(Path(self.build_lib) / "portal", ignore_errors=True)
        super().run()
        for source, target in self._copies():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        bundled = [] if self.editable_mode else [str(target) for _, target in self._copies()]
        return [*super().get_outputs(include_bytecode), *bundled]

    def _copies(self) -> list[tuple[Path, Path]]:
        """Return each resource file with the path it gets below the build folder."""
        into = Path(self.build_lib) / "portal" / "bundled"
        return [
            (file, into / file.relative_to(ROOT))
            for name in BUNDLED
            for file in sorted((ROOT / name).rglob("*"))
            if file.is_file() and "__pycache__" not in file.parts
        ]


setup(cmdclass={"build_py": BuildWithResources})
