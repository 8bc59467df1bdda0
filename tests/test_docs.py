"""What the documentation names is there: files, modules, commands, variables, flags."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from nnunet_3dct.settings import PREFIX, Settings
from tests.cli.test_commands import REPOSITORY, SCRIPTS

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
PACKAGE = REPOSITORY / "nnunet_3dct"
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@every_page
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", read(page))
    local = [link.partition("#")[0] for link in links if not re.match(r"https?:|#", link)]
    assert not [link for link in local if not (page.parent / link).exists()]


@every_page
def test_anchors_lead_to_a_heading(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)\s#]*\.md)#([^)\s]+)\)", read(page)):
        headings = re.findall(r"^#+ (.+)$", read(page.parent / link), flags=re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_commands_exist(page: Path) -> None:
    assert set(re.findall(r"\bnnUNet3DCT_\w+", read(page))) <= set(SCRIPTS)


@every_page
def test_modules_and_files_of_the_package_exist(page: Path) -> None:
    text = read(page)
    if page.name == "CHANGELOG.md":
        return  # names what was
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    dotted = re.findall(r"`(?:nnunet_3dct\.)?((?:" + "|".join(sorted(rooms)) + r")\.[a-z_]+)\b[^`]*`", text)
    for name in dotted:
        path = PACKAGE.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or path.is_dir(), name
    for name in re.findall(r"`((?:nnunet_3dct|nnunetv2|tests|figures|benchmarks)/[\w/.]*)`", text):
        assert (REPOSITORY / name).exists(), name


def test_every_variable_is_in_the_table_and_none_besides() -> None:
    section = read(REPOSITORY / "README.md").partition("### Variables")[2].partition("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`(NNUNETV2_\w+)`", table))
    named |= {PREFIX.rstrip("_") + rest for rest in re.findall(r"`(_[A-Z_]+)`", table)}
    fields = {field.name for field in dataclasses.fields(Settings)} - {"pre_checkpoint_path"}
    assert named == {PREFIX + name.upper() for name in fields} | {"NNUNETV2_PRE_CHECKPOINT_PATH"}


def test_defaults_in_the_table_are_those_of_the_settings() -> None:
    table = read(REPOSITORY / "README.md").partition("### Variables")[2]
    rows = dict(re.findall(r"^\| `NNUNETV2_MT_(\w+)` \| `?([^|`]+?)`? \|", table, flags=re.MULTILINE))
    for name, default in ((f.name.upper(), f.default) for f in dataclasses.fields(Settings)):
        if default is not None and name in rows:
            assert type(default)(rows[name]) == default, name


def test_targets_of_make_are_explained() -> None:
    text = read(REPOSITORY / "Makefile")
    targets = set(re.search(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE)[1].split()) - {"help"}  # type: ignore[index]
    explained = " ".join(re.findall(r'@echo "(.+?)"', text))
    assert not [target for target in targets if not re.search(rf"\bmake {target}\b", explained)]


def test_exit_codes_are_those_of_the_runner() -> None:
    from nnunet_3dct.cli import runner

    table = read(REPOSITORY / "README.md").partition("## Exit codes")[2].partition("\n## ")[0]
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)]
    assert codes == [runner.DONE, runner.SOME_FAILED, runner.WRONG_USE, runner.INTERRUPTED]
