"""What can be told from the source alone: imports, code made at run time, names that are not declared.

These rules are the cheap first line: they say in milliseconds what would fail later, and catch what was copied
without a thought. Whoever wants around them gets around them; the defence is the sandbox, which gives a
submission nothing worth reaching.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.submission import Manifest

# Builtins that make code out of text, or reach files. `torch.compile` and `re.compile` are attributes, not these.
SUSPECT_BUILTINS = {
    "exec": "runs text as code",
    "eval": "runs text as code",
    "compile": "makes code of text",
    "__import__": "imports by a name that is not seen here",
    "open": "reads or writes a file",
}
# What the modules that a task may well allow can do to other processes and to this one's limits.
REACHES_OUT = {
    "os": ("fork", "forkpty", "system", "popen", "kill", "killpg", "sched_setaffinity", "exec", "spawn", "posix_spawn"),
    "sys": ("setprofile", "settrace", "addaudithook", "modules"),
    "torch": ("load", "hub", "multiprocessing"),
    "numpy": ("load", "fromfile", "memmap", "genfromtxt", "loadtxt"),
}
ALIASES = {"np": "numpy"}


def foreign_imports(name: str, tree: ast.AST, allowed: list[str], own: set[str]) -> Iterator[str]:
    """Imports of a module that are neither allowed by the task nor the submission's own; nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        else:
            continue  # a relative import stays inside the submission's folder
        for module in modules:
            top = module.split(".")[0]
            if top not in allowed and top not in own:
                yield f"{name}:{node.lineno}: imports {module}"


def own_modules(files: dict[str, bytes]) -> set[str]:
    """The top-level names under which a submission's own modules are imported."""
    return {name.split("/")[0].removesuffix(".py") for name in files if name.endswith(".py")} - {"train"}


def code_made_at_run_time(name: str, tree: ast.AST) -> Iterator[str]:
    """Uses of what turns text into code, or reaches other processes and files."""
    suspects = SUSPECT_BUILTINS.keys() - _bound_names(tree)  # a flag may well be called `compile`
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in suspects:
            yield f"{name}:{node.lineno}: {node.id}() {SUSPECT_BUILTINS[node.id]}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield from _reaching(name, node.lineno, node.value.id, node.attr)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield from _reaching(name, node.lineno, node.module or "", alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parent, _, child = alias.name.rpartition(".")
                yield from _reaching(name, node.lineno, parent, child)


def _bound_names(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def _reaching(name: str, line: int, module: str, attribute: str) -> Iterator[str]:
    reaches = REACHES_OUT.get(ALIASES.get(module, module), ())
    families = ("exec", "spawn", "posix_spawn")  # each of these has variants: execv, execve, ...
    if attribute in reaches or (module == "os" and attribute.startswith(families)):
        yield f"{name}:{line}: {module}.{attribute} reaches out of the run"


def undeclared_names(name: str, tree: ast.AST, manifest: Manifest) -> Iterator[str]:
    """`.uses("x")` and `.hparam("x")` of names that submission.toml does not declare."""
    tables = {"uses": ("methods", set(manifest.methods)), "hparam": ("hparams", set(manifest.hparams))}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) == 1):
            continue
        argument = node.args[0]
        if node.func.attr in tables and isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            section, declared = tables[node.func.attr]
            if argument.value not in declared:
                yield f"{name}:{node.lineno}: {argument.value!r} has no table [{section}.{argument.value}]"


def does_its_work_when_imported(tree: ast.Module) -> Iterator[str]:
    """Calls of main, print or connect that stand in train.py outside of any function and of the `__main__` guard."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or _is_guard(statement):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in ("main", "print", "connect"):
                    yield f"train.py:{node.lineno}: calls {called}() when it is imported"


def _is_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and any(
        isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test)
    )
