"""Writes the settings of `components/settings.py` into Pulumi.yaml's config block and into the README's table.

`python -m scripts.settings_table` writes; with `--check` it exits with 1 where one of the files is out of date.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import Field
from typing import Any

from components.settings import default_of, each
from scripts.machine.paths import ROOT
from scripts.machine.processes import end

_PLACES = {
    # file -> (begin, end) of what is generated in it
    "Pulumi.yaml": ("# settings: begin\n", "# settings: end\n"),
    "README.md": ("<!-- settings: begin -->\n", "<!-- settings: end -->\n"),
}
_TYPES = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}
_TITLES = {"general": "The whole stack", "mlflow": "MLflow", "langfuse": "Langfuse"}


def pulumi_config() -> str:
    """The `config:` block, which lets the CLI refuse values of the wrong type."""
    return (
        "\n".join(["config:", *(line for key, _, item in each() for line in _config_entry(key, item))]) + "\n"
    )


def _config_entry(key: str, item: Field[Any]) -> Iterator[str]:
    default = default_of(item)
    yield f"  {key}:"
    yield f"    type: {_TYPES[type(default)]}"
    if isinstance(default, list):
        yield "    items:"
        yield f"      type: {'object' if item.name == 'users' else 'string'}"
    yield f"    description: {json.dumps(_meaning(item), ensure_ascii=False)}"
    yield f"    default: {json.dumps(default)}"


def readme_table() -> str:
    """The table of the README, one part for each product."""
    lines: list[str] = []
    title = ""
    for key, section, item in each():
        if _TITLES[section] != title:
            title = _TITLES[section]
            lines += ["", f"**{title}**", "", "| setting | default | meaning |", "| --- | --- | --- |"]
        meaning = _meaning(item).replace("|", "\\|")
        lines.append(f"| `{key}` | {_shown(default_of(item))} | {meaning} |")
    return "\n".join([*lines[1:], ""])


def _meaning(item: Field[Any]) -> str:
    return f"{item.metadata['meaning']}. Secret" if item.metadata["secret"] else item.metadata["meaning"]


def _shown(default: Any) -> str:
    if default in ("", [], {}):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def up_to_date(name: str, text: str) -> str:
    """The text of a file with its generated part as it should be."""
    begin, end = _PLACES[name]
    made = pulumi_config() if name == "Pulumi.yaml" else readme_table()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{made}{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 where something is out of date"
    )
    check = parser.parse_args().check
    stale = []
    for name in _PLACES:
        file = ROOT / name
        text = file.read_text(encoding="utf-8")
        wanted = up_to_date(name, text)
        if wanted != text:
            stale.append(name)
            if not check:
                file.write_text(wanted, encoding="utf-8")
    if stale:
        print(
            f"{', '.join(stale)}: {'out of date; run python -m scripts.settings_table' if check else 'written'}"
        )
    return 1 if check and stale else 0


if __name__ == "__main__":
    end(main)
