"""Circles of imports between the files of a crate: each must be one that EXPLAINED gives a reason for.

A file needs another where it names something of it: by `use`, or by a path that begins with crate, self, super or a
module declared in it. A name that a module only passes on (`pub use`) counts as a need of the file that it comes from;
`mod child;` alone is none, nor is what stands under #[cfg(test)]. A part may know what it is a part of
(`hamming/avx2.rs` the types of `hamming.rs`): that is what a module within a module is; but not the crate's root, which
only lists what there is.

    check_imports.py           fails, and draws the circles, where one is not explained or an explanation is not needed
    check_imports.py --all     draws the explained ones as well
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Files that need each other, and why that is right.
EXPLAINED = {
    frozenset(
        f"crates/vectors/src/{name}.rs"
        for name in ("element", "kernels", "kernels/avx2", "kernels/avx512", "kernels/neon")
    ): "an element type names its kernels, and a kernel is written once for all element types",
}

Module = tuple[str, ...]
TOKEN = re.compile(r"[A-Za-z_]\w*|::|[{},;*]|\S")
PATH = re.compile(r"(?<![\w:.'])(?:[A-Za-z_]\w*)(?:\s*::\s*[A-Za-z_]\w*)+")
ASIDE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'""",
    re.DOTALL,
)


def code_of(path: Path) -> str:
    """The file without comments, literals and what is compiled for tests only."""
    text = ASIDE.sub(" ", path.read_text())
    while found := re.search(r"#\[cfg\(test\)\]\s*(?:pub\s+)?(?:mod\s+\w+|use[^;{]*|fn[^{]*|impl[^{]*)\s*", text):
        at = found.end()
        if at < len(text) and text[at] == "{":
            depth = 0
            while True:
                depth += {"{": 1, "}": -1}.get(text[at], 0)
                at += 1
                if depth == 0:
                    break
        text = text[: found.start()] + text[at:]
    return text


def names_in_use(tokens: list[str], at: int, before: Module) -> tuple[list[tuple[Module, str]], int]:
    """Every (path, name by which it is known) of the use tree that begins at a token; the token behind it."""
    path, found = before, []
    while True:
        token = tokens[at]
        if token == "::":
            token, at = tokens[at + 1], at + 1
        if token == "{":
            at += 1
            while tokens[at] != "}":
                inner, at = names_in_use(tokens, at, path)
                found += inner
                at += tokens[at] == ","
            return found, at + 1
        if token == "*":
            return [(path, "*")], at + 1
        path, at = (*path, token), at + 1
        if tokens[at] == "as":
            return [(path, tokens[at + 1])], at + 2
        if tokens[at] != "::":
            path = path[:-1] if path[-1:] == ("self",) else path
            return [(path, path[-1] if path else "")], at
        at += 1


class Crate:
    """The modules of one crate, what each passes on, and what each needs."""

    def __init__(self, source: Path) -> None:
        self.files: dict[Module, Path] = {}
        for path in sorted(source.rglob("*.rs")):
            module = path.relative_to(source).with_suffix("").parts
            if module[0] in ("bin", "main"):
                continue
            if module[-1] in ("mod", "lib"):
                module = module[:-1]
            self.files[module] = path
        self.code = {module: code_of(path) for module, path in self.files.items()}
        self.children = {
            module: {name for name in re.findall(r"\bmod\s+(\w+)\s*;", text) if (*module, name) in self.files}
            for module, text in self.code.items()
        }
        self.uses: dict[Module, list[tuple[Module, str, bool]]] = {}
        for module, text in self.code.items():
            self.uses[module] = []
            for public, tree in re.findall(r"(?<!\w)(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", text):
                names, _ = names_in_use([*TOKEN.findall(tree), ";", ";"], 0, ())
                self.uses[module] += [(path, name, bool(public)) for path, name in names]

    def absolute(self, module: Module, path: Module) -> Module | None:
        """The path from the crate's root; nothing where it begins outside the crate."""
        if path[:1] == ("crate",):
            return path[1:]
        if path[:1] == ("self",):
            return module + path[1:]
        if path[:1] == ("super",):
            while path[:1] == ("super",):
                module, path = module[:-1], path[1:]
            return module + path
        if path and path[0] in self.children[module]:
            return module + path
        return None

    def owner(self, path: Module, seen: frozenset[Module] = frozenset()) -> Module:
        """The module that a path from the root leads into, through whatever passes its name on."""
        module: Module = ()
        for at, segment in enumerate(path):
            if segment in self.children.get(module, ()):
                module = (*module, segment)
                continue
            for target, name, _ in self.uses[module]:
                passed = self.absolute(module, target)
                if passed is not None and name in (segment, "*") and passed not in seen:
                    behind = path[at:] if name == "*" else path[at + 1 :]
                    owner = self.owner(passed + behind, seen | {passed})
                    if name != "*" or self.defines(owner, path[at]):
                        return owner
            break
        return module

    def defines(self, module: Module, name: str) -> bool:
        kinds = r"(?:fn|struct|enum|trait|type|const|static|union|macro_rules!|mod)"
        return re.search(rf"\b{kinds}\s+(?:mut\s+)?{name}\b", self.code[module]) is not None

    def needs(self, module: Module) -> dict[Module, set[str]]:
        """Of every module that this one needs, the names. What it is a part of is left out, but for the root."""
        text = re.sub(r"(?<!\w)(?:pub(?:\([^)]*\))?\s+)?use\s+[^;]+;", " ", self.code[module])
        paths = [path for path, _, public in self.uses[module] if not public]
        paths += [tuple(re.split(r"\s*::\s*", found)) for found in PATH.findall(text)]
        found: dict[Module, set[str]] = {}
        for path in paths:
            absolute = self.absolute(module, path)
            if absolute is None:
                continue
            owner = self.owner(absolute)
            if owner != module and (owner == () or owner != module[: len(owner)]):
                found.setdefault(owner, set()).add(path[-1])
        return found


def circles(needs: dict[Module, dict[Module, set[str]]]) -> list[set[Module]]:
    """Tarjan's strongly connected components of more than one module."""
    index: dict[Module, int] = {}
    low: dict[Module, int] = {}
    stack: list[Module] = []
    found: list[set[Module]] = []

    def visit(module: Module) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(needs[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            circle: set[Module] = set()
            while module not in circle:
                circle.add(stack.pop())
            if len(circle) > 1:
                found.append(circle)

    for module in sorted(needs):
        if module not in index:
            visit(module)
    return found


def main() -> int:
    sys.setrecursionlimit(10_000)
    sources = [ROOT / "src", *sorted((ROOT / "crates").glob("*/src"))]
    left, files = set(EXPLAINED), 0
    wrong = False
    for source in sources:
        crate = Crate(source)
        files += len(crate.files)
        needs = {module: crate.needs(module) for module in crate.files}
        named = {module: str(path.relative_to(ROOT)) for module, path in crate.files.items()}
        for circle in circles(needs):
            names = frozenset(named[module] for module in circle)
            left.discard(names)
            wrong |= names not in EXPLAINED
            if names in EXPLAINED and "--all" not in sys.argv:
                continue
            print(f"circle: {EXPLAINED.get(names, 'not explained')}")
            for module in sorted(circle):
                for other in sorted(circle & needs[module].keys()):
                    print(f"  {named[module]} needs {named[other]}: {', '.join(sorted(needs[module][other]))}")
    for names in left:
        wrong = True
        print(f"explained, but no circle: {', '.join(sorted(names))}")
    print(f"{files} files, {len(EXPLAINED) - len(left)} circles that are explained")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
