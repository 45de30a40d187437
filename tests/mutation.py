# SPDX-License-Identifier: Apache-2.0
"""Modules and their nearest tests -> the changes of one operator, number or condition that no test notices.

    python -m tests.mutation [PART_OF_A_PATH ...] [--jobs N]

Each change is tried in a forked process that gets the changed module in place of the file; the file stays as it is. The
limit of a try is in seconds of processor time, and tests that use none for a while hang: a busy machine changes no
verdict. The status is 1 where a change survives that `EQUIVALENT` does not explain.
"""

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import psutil
import pytest

ROOT = Path(__file__).parents[1]
# A module -> the tests that hold its promises.
TARGETS = {
    "codec/latentwire_core/container.py": ["tests/core/test_container.py", "tests/core/test_container_bounds.py"],
    "codec/latentwire_core/identity.py": ["tests/core/test_identity.py"],
    "codec/latentwire_core/noise.py": ["tests/core/test_noise.py"],
    "codec/latentwire_core/quality.py": ["tests/core/test_quality.py"],
    "codec/latentwire_core/scaling.py": ["tests/core/test_scaling_of_configs.py"],
    "codec/latentwire_core/varints.py": ["tests/core/test_varints.py", "tests/core/test_container.py"],
    "codec/latentwire_codec/images/geometry.py": ["tests/codec/images/test_geometry.py"],
    "codec/latentwire_codec/lat/coder.py": ["tests/codec/lat/test_coder.py"],
    "codec/latentwire_codec/lat/quantizer.py": ["tests/codec/lat/test_quantizer.py"],
    "codec/latentwire_codec/runtime/posterior.py": ["tests/codec/runtime/test_posterior.py"],
    "client/latentwire_client/_outbox.py": ["tests/client/test_outbox.py"],
    "server/latentwire_server/engine/batching.py": ["tests/server/engine/test_batching.py"],
    "server/latentwire_server/engine/lane.py": ["tests/server/engine/test_lane.py"],
    "server/latentwire_server/engine/shares.py": ["tests/server/engine/test_shares.py"],
}
# Why a survivor changes nothing that can be seen, where several share the reason.
NEGATIVE = "numpy's reshape takes every negative number for the side that it is to find"
NUMBERED = "the numbers of batches tell them apart, and say no more"
SMALL = "a numerator is 1 for any size up to 2^-63, clipped or not"
# Survivors that change nothing that can be seen -> why.
EQUIVALENT = {
    "codec/latentwire_core/noise.py: words = np.random.Philox(key=key).random_raw(count + count % 2).reshape(-1, 2) "
    ">> np.uint64(11): "
    "1 => 2": NEGATIVE,
    "codec/latentwire_core/noise.py: return pairs.reshape(-1)[:count].astype(np.float32).reshape(shape): "
    "1 => 2": NEGATIVE,
    'codec/latentwire_codec/images/geometry.py: padded = np.pad(padded, widths, mode="edge" if side < multiple else '
    '"reflect"): '
    "side < multiple => side <= multiple": "a side of just one multiple needs no padding",
    "codec/latentwire_codec/lat/quantizer.py: sizes = np.clip(sizes, 2.0**-63, 2.0**79): "
    "2.0 ** (-63) => 2.0 * -63": SMALL,
    "codec/latentwire_codec/lat/quantizer.py: sizes = np.clip(sizes, 2.0**-63, 2.0**79): 2.0 => 3.0": SMALL,
    "codec/latentwire_codec/lat/quantizer.py: sizes = np.clip(sizes, 2.0**-63, 2.0**79): 63 => 64": SMALL,
    "codec/latentwire_codec/lat/quantizer.py: exponent = int(np.clip(np.floor(16 - np.log2(sizes.max())), -64, 63)): "
    "64 => 65": "sizes of at most 2^79 have exponents from -63 on",
    "codec/latentwire_codec/lat/quantizer.py: largest = float(np.abs(real).max(initial=0)): "
    "0 => 1": "the limit is far above one step",
    "server/latentwire_server/engine/batching.py: self._lanes: list[Lane[P, BatchedResult[R]]] = [Lane(limits) "
    "for _ in range(len(LANE_LIMITS) + 1)]: 1 => 2": "a further lane stays empty",
    "server/latentwire_server/engine/batching.py: self._batches = 0: 0 => 1": NUMBERED,
    "server/latentwire_server/engine/batching.py: self._batches += 1: 1 => 2": NUMBERED,
}
# What many tries need is imported before the fork.
SHARED = ("grpc", "hypothesis.extra.numpy", "numpy", "torch")
# Processor seconds for a try: this many times what the tests take unchanged, and a few seconds more.
PATIENCE, LEAST_LIMIT_S = 4, 10
# A process that sleeps and uses no processor time for so long waits for something that never comes.
IDLE_S, PAUSE_S = 10.0, 0.05

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """A module with one change: its path, the line and its text, what stood there, what stands there now, the code."""

    path: str
    line: int
    text: str
    before: str
    after: str
    code: CodeType

    def __str__(self) -> str:
        return f"{self.path}: {self.text}: {self.before} => {self.after}"


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=ops):
            for place, operator in enumerate(ops):
                other = copy.deepcopy(new)
                other.ops[place] = COMPARISONS[type(operator)]()
                yield other
        case ast.BinOp(op=operator) if type(operator) in OPERATORS and not isinstance(new.left, ast.JoinedStr):
            new.op = OPERATORS[type(operator)]()
            yield new
        case ast.BoolOp(op=operator):
            new.op = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Call(func=ast.Name(id="min" | "max"), args=[first, second], keywords=[]):
            yield first
            yield second
        case ast.IfExp(test=ast.Name() | ast.Call() | ast.Attribute()):
            new.test = ast.UnaryOp(ast.Not(), new.test)
            yield new
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)


def looked_into(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Yield the places below a node that hold expressions which run: (parent, field, index in a list)."""
    # `zip(..., strict=True)` is an assertion: nothing shows whether it is there.
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    for field, value in ast.iter_fields(node):
        # Annotations say nothing at run time, and a message may change.
        if field in ("annotation", "returns", "type_params") or isinstance(value, ast.JoinedStr):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield node, field, index
                yield from looked_into(child)


def changes(path: str) -> Iterator[Change]:
    """Yield each change of a module."""
    source = (ROOT / path).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    for parent, field, index in looked_into(tree):
        value = getattr(parent, field)
        node = value if index is None else value[index]
        for new in changed(node):
            put(parent, field, index, new)
            code = compile(ast.fix_missing_locations(tree), path, "exec")
            put(parent, field, index, node)
            yield Change(path, node.lineno, lines[node.lineno - 1].strip(), ast.unparse(node), ast.unparse(new), code)


def put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    """Put a node at a place."""
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


class Loader(importlib.machinery.SourceFileLoader):
    """Load a module from code that is given, not from its file."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        """Return the changed module's code."""
        return self.code


class Finder(importlib.abc.MetaPathFinder):
    """Find one changed module, and leave all others to Python."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.module = ".".join(Path(change.path).with_suffix("").parts[1:])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the changed module."""
        if fullname != self.module:
            return None
        file = str(ROOT / self.change.path)
        return importlib.util.spec_from_file_location(fullname, file, loader=Loader(fullname, file, self.change.code))


def start(tests: Sequence[str], change: Change | None, limit_s: int) -> int:
    """Run tests in a forked process, and return its id; its status is 0 where all tests pass."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        if change is not None:
            sys.meta_path.insert(0, Finder(change))
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        plugins = ("-p", "no:cacheprovider", "-p", "no:xdist")
        # A function that numba kept on disk would stand in for the changed one.
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NUMBA_CACHE_DIR"] = folder
            status = int(pytest.main(["-x", "-q", "--assert", "plain", *plugins, *tests]))
    finally:
        os._exit(status)


def ended_one(processes: Iterable[int]) -> tuple[int, int]:
    """Wait until one of the processes has ended, kill one that hangs, and return the id and the status of the first."""
    used: dict[int, float] = {}
    busy: dict[int, float] = {}
    while True:
        now = time.monotonic()
        for process in processes:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return ended, status
            seen = psutil.Process(process)
            times, sleeps = seen.cpu_times(), seen.status() == psutil.STATUS_SLEEPING
            if used.get(process) != times.user + times.system or not sleeps:
                used[process], busy[process] = times.user + times.system, now
            elif now - busy[process] > IDLE_S:
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE_S)


def survivors(path: str, tests: Sequence[str], jobs: int) -> tuple[int, list[Change]]:
    """Try each change of a module: how many there are, and those that all tests passed with.

    Raises:
        RuntimeError: the tests fail without a change.
    """
    before = time.process_time(), os.times()
    _, status = os.waitpid(start(tests, None, 600), 0)
    if status:
        raise RuntimeError(f"{path}: its tests fail unchanged: {' '.join(tests)}")
    after = os.times()
    taken_s = after.children_user + after.children_system - before[1].children_user - before[1].children_system
    limit_s = int(PATIENCE * taken_s) + LEAST_LIMIT_S
    running: dict[int, Change] = {}
    count, alive = 0, []

    def end_one() -> None:
        process, status = ended_one(running)
        change = running.pop(process)
        if status == 0:
            alive.append(change)

    for change in changes(path):
        count += 1
        if len(running) == jobs:
            end_one()
        running[start(tests, change, limit_s)] = change
    while running:
        end_one()
    return count, sorted(alive, key=lambda change: change.line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the modules whose paths hold one of the given parts, or all, and print the survivors."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART_OF_A_PATH")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ.setdefault("HYPOTHESIS_PROFILE", "dev")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in SHARED:
        importlib.import_module(name)
    unexplained = 0
    for path, tests in TARGETS.items():
        if chosen.parts and not any(part in path for part in chosen.parts):
            continue
        count, alive = survivors(path, tests, chosen.jobs)
        new = [change for change in alive if str(change) not in EQUIVALENT]
        unexplained += len(new)
        killed, equivalent = count - len(alive), len(alive) - len(new)
        print(f"{path}: {count} changes, {killed} killed, {equivalent} equivalent, {len(new)} alive", flush=True)
        for change in new:
            print(f"  line {change.line}: {change.text}: {change.before} => {change.after}", flush=True)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
