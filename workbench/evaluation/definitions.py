"""What a task of lm-evaluation-harness is made of, without importing the harness: files, and the version installed.

Promises that an edited definition, a function it calls or a local file of its items is another task, wherever they lie,
and that planning costs no import. What a task fetches from the hub is known by the harness's version alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import DataError, MissingExtra
from workbench.identity import digest

SUFFIXES = (".yaml", ".yml")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads a definition and takes its functions for their names."""


_Loader.add_multi_constructor("!", lambda loader, tag, node: str(node.value))


def harness_version() -> str:
    """Return the version of lm-evaluation-harness that is installed.

    Raises:
        MissingExtra: if none is.
    """
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        raise MissingExtra("lm_eval", "eval") from None


def is_file(task: str) -> bool:
    """Whether a task is named by the file that defines it."""
    return task.endswith(SUFFIXES)


def definition_hash(definition: str | None, include_path: str | None) -> str:
    """Hash what defines a task: the harness's version, local definitions, their functions and local files of items.

    Args:
        definition: The file of a task; None where the harness, or a folder, knows it by name.
        include_path: A folder of definitions.

    Raises:
        DataError: for a definition that is not there or no YAML.
        MissingExtra: if the harness is not installed.
    """
    found: set[Path] = set()
    if definition is not None:
        found |= set(_closure(Path(definition)))
    if include_path is not None:
        folder = Path(include_path)
        if not folder.is_dir():
            raise DataError(
                "there is no such folder of tasks", where=include_path, expected="a folder of .yaml definitions"
            )
        for path in sorted(folder.rglob("*.yaml")):
            found |= set(_closure(path))
    contents = sorted((path.name, _content(str(path), path.stat().st_mtime_ns, path.stat().st_size)) for path in found)
    return digest("lm-eval", harness_version(), contents)


def read_definition(path: Path) -> dict[str, Any]:
    """Return the fields of a definition as they stand in its file.

    Raises:
        DataError: if it is not there or no YAML of fields.
    """
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise DataError("the definition of a task cannot be read", where=path, got=error.strerror) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError("the definition of a task is no YAML", where=path, got=str(error).splitlines()[0]) from None
    if not isinstance(fields, dict):
        raise DataError(
            "the definition of a task has no fields",
            where=path,
            expected="task, dataset_path, output_type, ...",
            got=str(fields)[:60],
        )
    return fields


def _closure(path: Path) -> Iterator[Path]:
    """Yield a definition, those it includes, the modules of its functions and the local files of its items."""
    fields = read_definition(path)
    yield path
    for included in _listed(fields.get("include")):
        yield from _closure(path.parent / included)
    for module in set(re.findall(r"!function\s+([\w.]+)\.\w+", path.read_text(encoding="utf-8"))):
        source = path.parent / (module.replace(".", "/") + ".py")
        if source.is_file():
            yield source
    for text in _texts([fields.get("dataset_path"), fields.get("dataset_kwargs")]):
        local = Path(text)
        if local.is_file():
            yield local
        elif local.is_dir():
            yield from (held for held in sorted(local.rglob("*")) if held.is_file())


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for held in value.values():
            yield from _texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held)


@lru_cache(maxsize=1024)
def _content(path: str, modified: int, size: int) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
