"""Mutation testing: results/mutants.csv and docs/mutants.md.

    make mutants

mutmut changes one thing at a time in the modules named in pyproject.toml and runs the tests that
reach it. A mutant that no test notices survived; one that no test could notice is explained in
benchmarks/equivalent_mutants.csv. A survivor without an explanation is an error, and so is an
explanation without its survivor.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tables import Row, read_rows, write_page, write_rows

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "mutation"
TABLE = ROOT / "results" / "mutants.csv"
PAGE = ROOT / "docs" / "mutants.md"
EXPLAINED = ROOT / "benchmarks" / "equivalent_mutants.csv"
KEY = ("module", "function", "before", "after")
OUTCOMES = ("killed", "timeout", "survived", "no tests", "other")
COLUMNS = ["module", "mutants", *(name.replace(" ", "_") for name in OUTCOMES)]
COLUMNS += ["explained", "wording", "open"]
"""`survived` is made of the last three."""
DECORATORS = ("property", "contextmanager")


@dataclass(frozen=True)
class Mutant:
    """A changed line of a function, and what became of it."""

    module: str
    function: str
    before: str
    after: str
    outcome: str

    @property
    def key(self) -> tuple[str, ...]:
        """What an explanation is found by: no number, which another mutant could take."""
        return tuple(getattr(self, name) for name in KEY)

    @property
    def is_wording(self) -> bool:
        """Whether a text of several words is spelled otherwise, and nothing else is changed."""
        before, after = (re.findall(r'"[^"]*"', line) for line in (self.before, self.after))
        changed = [text for text in before if text not in after]
        spelled = self.before.casefold() == self.after.casefold().replace("xx", "")
        words = [text for text in changed if re.search(r"\w \S", text) and "{" not in text]
        return spelled and len(words) == len(changed) == 1


def modules() -> list[str]:
    """Files that are mutated."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(content["tool"]["mutmut"]["only_mutate"])


def plain_decorators(source: str) -> str:
    """The same module with `name = property(name)` under a function in place of `@property` above.

    mutmut leaves decorated functions alone.
    """
    lines = source.splitlines()
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(found, key=lambda n: n.lineno, reverse=True):
        names = [d.id for d in node.decorator_list if isinstance(d, ast.Name)]
        if len(names) == 1 and names[0] in DECORATORS:
            indent = " " * node.col_offset
            lines.insert(node.end_lineno or 0, f"{indent}{node.name} = {names[0]}({node.name})")
            del lines[node.decorator_list[0].lineno - 1]
    return "\n".join(lines) + "\n"


def prepare() -> None:
    """Bring the copy up to date in which mutmut works; files that are the same keep their times."""
    mutated = modules()
    for file in [ROOT / "pyproject.toml", *(ROOT / "fss_bench").rglob("*"), *tests()]:
        if file.is_file() and "__pycache__" not in file.parts:
            name = file.relative_to(ROOT)
            content = file.read_bytes()
            if name.as_posix() in mutated:
                content = plain_decorators(content.decode()).encode()
            target = WORK / name
            if not target.is_file() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def tests() -> Iterator[Path]:
    """Files of the tests."""
    return (ROOT / "tests").rglob("*")


def run_mutmut(jobs: int, names: Sequence[str] = ()) -> None:
    """Try the mutants that have no outcome yet, or those of these names."""
    settings = {
        "FSS_BENCH_SHARED": str(ROOT.parent / "shared"),
        "HYPOTHESIS_PROFILE": "mutants",
        "OMP_NUM_THREADS": "1",
    }
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(jobs)]
    subprocess.run([*command, *names], cwd=WORK, env={**settings, **os.environ}, check=True)


def outcomes(file: str) -> dict[str, str]:
    """Name -> outcome of each mutant of a module."""
    from mutmut.stats import status_by_exit_code

    kept = json.loads((WORK / "mutants" / f"{file}.meta").read_text(encoding="utf-8"))
    found = {name: status_by_exit_code[code] for name, code in kept["exit_code_by_key"].items()}
    return {name: text if text in OUTCOMES else "other" for name, text in found.items()}


def alive() -> list[str]:
    """Names of the mutants that were not killed."""
    return [name for file in modules() for name, text in outcomes(file).items() if text != "killed"]


def mutants() -> Iterator[Mutant]:
    """Every mutant with its outcome."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    os.chdir(WORK)  # mutmut finds its files from there
    for file in modules():
        for name, outcome in outcomes(file).items():
            function, of_class = orig_function_and_class_names_from_key(name)
            diff = get_diff_for_mutant(name, path=file).splitlines()[3:]
            before, after = (
                " / ".join(line[1:].strip() for line in diff if line.startswith(sign))
                for sign in "-+"
            )
            yield Mutant(
                module=Path(file).stem,
                function=f"{of_class}.{function}" if of_class else function,
                before=before,
                after=after,
                outcome=outcome,
            )


def table(found: Iterable[Mutant], explained: set[tuple[str, ...]]) -> list[Row]:
    """A row a module, and their sum."""
    counts: dict[str, Counter[str]] = {}
    for mutant in found:
        for module in (mutant.module, "all"):
            row = counts.setdefault(module, Counter())
            row.update(["mutants", mutant.outcome.replace(" ", "_")])
            if mutant.outcome == "survived":
                kind = "explained" if mutant.key in explained else "open"
                row[kind if not mutant.is_wording else "wording"] += 1
    last = {"all": counts.pop("all")}
    return [
        {"module": module, **{name: str(row[name]) for name in COLUMNS[1:]}}
        for module, row in {**counts, **last}.items()
    ]


def faults(found: Sequence[Mutant], explained: set[tuple[str, ...]]) -> list[str]:
    """Mutants that nothing noticed and nobody explained, and explanations of no survivor."""
    unseen = [m for m in found if m.outcome not in ("killed", "timeout") and not m.is_wording]
    stale = explained - {m.key for m in unseen if m.outcome == "survived"}
    return [
        *(
            f"{m.outcome}: {m.module}.py {m.function}\n  - {m.before}\n  + {m.after}"
            for m in unseen
            if m.outcome != "survived" or m.key not in explained
        ),
        *(f"explained, but no survivor: {' | '.join(key)}" for key in sorted(stale)),
    ]


def page_tables(rows: Sequence[Row], explanations: Sequence[Row]) -> str:
    """The tables of the page."""
    lines = ["## Mutants", "", f"| {' | '.join(n.replace('_', ' ') for n in COLUMNS)} |"]
    lines.append("|---|" + "---:|" * (len(COLUMNS) - 1))
    lines += [f"| {' | '.join(row[name] for name in COLUMNS)} |" for row in rows]
    lines += ["", "## Survivors explained", ""]
    for row in explanations:
        lines += [f"- `{row['module']}.py`, `{row['function']}`: {row['why']}", "  ```diff"]
        lines += [f"  - {row['before']}", f"  + {row['after']}", "  ```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Try the mutants and write the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="only what was not killed")
    a = parser.parse_args()
    if not a.again:
        shutil.rmtree(WORK, ignore_errors=True)
    prepare()
    run_mutmut(a.jobs)
    if a.again and (names := alive()):
        run_mutmut(a.jobs, names)
    found, explanations = list(mutants()), read_rows(EXPLAINED)
    explained = {tuple(row[name] for name in KEY) for row in explanations}
    rows = table(found, explained)
    write_rows(TABLE, COLUMNS, rows)
    write_page(PAGE, page_tables(rows, explanations))
    wrong = faults(found, explained)
    print("\n".join([*wrong, f"{len(wrong)} to explain or to kill"]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
