"""What changed between two locks, in an operator's words."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from plan.lock import Archive, Host, Lock, Model, Packages, Stack

# More hosts than this are counted and not named.
_NAMED = 4
# A distribution's packages move by the hundred.
_LISTED = 10


def lines(old: Lock, new: Lock) -> Iterator[str]:
    """One sentence a change, hosts that change alike together; none when nothing changed."""
    alike: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted({*old.hosts, *new.hosts}):
        if changes := tuple(_host(old, new, old.hosts.get(name), new.hosts.get(name))):
            alike[changes].append(name)
    for changes, hosts in sorted(alike.items(), key=lambda item: item[1]):
        yield f"{_hosts(hosts)}:"
        yield from (f"  {change}" for change in changes)


def _hosts(names: list[str]) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _host(old: Lock, new: Lock, before: Host | None, after: Host | None) -> Iterator[str]:
    if before is None or after is None:
        yield "is new" if before is None else "is gone"
        return
    if before.stack != after.stack or (
        before.stack and old.stack[before.stack] != new.stack[str(after.stack)]
    ):
        yield from _stacks(_of(old.stack, before.stack), _of(new.stack, after.stack))
    yield from _moved("Ollama", before.ollama, after.ollama)
    if before.ollama and before.ollama == after.ollama:
        yield from _archive(before.ollama, old.ollama[before.ollama], new.ollama[before.ollama])
    yield from _system("system", old.packages, new.packages, (before.packages, after.packages))
    yield from _system("driver's", old.packages, new.packages, (before.driver, after.driver))
    yield from _moved("driver", before.driver, after.driver)
    yield from _packages("driver package", _driver(old, before), _driver(new, after))
    for name in sorted({*before.tags, *after.tags}):
        if name not in before.tags or name not in after.tags:
            yield f"model {name} {'is added' if name not in before.tags else 'goes'}"
        elif old.tag[name].layers != new.tag[name].layers:
            yield f"model {name} has other layers"
        elif old.tag[name].manifest != new.tag[name].manifest:
            yield f"model {name} has another manifest for the same layers"
    for name in sorted({*before.models, *after.models}):
        if name not in before.models or name not in after.models:
            yield f"model {name} {'is added' if name not in before.models else 'goes'}"
        else:
            yield from _model(name, old.model[name], new.model[name])


def _archive(name: str, before: Archive, after: Archive) -> Iterator[str]:
    if (before.file, before.sha256) != (after.file, after.sha256):
        yield f"Ollama {name} has other bytes under the same version: {after.file}"


def _system(
    whose: str, old: Mapping[str, Packages], new: Mapping[str, Packages], names: tuple[str | None, str | None]
) -> Iterator[str]:
    """Packages of the distribution, the files themselves; those that move by the hundred are counted."""
    before, after = old.get(names[0] or ""), new.get(names[1] or "")
    if before is None or after is None:
        if before is not after:
            yield f"{whose} packages {'are added' if before is None else 'go'}"
        return
    moved = list(_packages(f"{whose} package", _versions(before), _versions(after)))
    yield from moved[:_LISTED]
    if len(moved) > _LISTED:
        yield f"{len(moved) - _LISTED} more {whose} packages move"
    if not moved and _bytes(before) != _bytes(after):
        yield f"{whose} packages have other files under the same versions"


def _bytes(packages: Packages) -> dict[str, str]:
    """File -> sha256; where a mirror has it is no difference."""
    return {file: package.sha256 for file, package in packages.files.items()}


def _versions(packages: Packages) -> dict[str, str]:
    """Name -> version of packages, by their files: NAME_VERSION_ARCH.deb, NAME-VERSION-RELEASE.ARCH.rpm."""
    found = {}
    for file in packages.files:
        stem = file.rpartition(".")[0]
        if file.endswith(".deb"):
            name, _, version = stem.rpartition("_")[0].partition("_")
        else:
            name, upstream, release = stem.rpartition(".")[0].rsplit("-", 2)
            version = f"{upstream}-{release}"
        found[name] = version
    return found


def _driver(lock: Lock, host: Host) -> Mapping[str, str]:
    """Name -> version of the driver's packages."""
    found = lock.driver.get(host.driver or "")
    return found.packages if found else {}


def _of(stacks: Mapping[str, Stack], name: str | None) -> Stack | None:
    return stacks[name] if name else None


def _moved(what: str, before: str | None, after: str | None) -> Iterator[str]:
    if before == after:
        return
    if before is None or after is None:
        yield f"{what} {after} is added" if before is None else f"{what} {before} goes"
    else:
        yield f"{what} {before} becomes {after}"


def _stacks(before: Stack | None, after: Stack | None) -> Iterator[str]:
    if before is None or after is None:
        yield "an environment is added" if before is None else "the environment goes"
        return
    yield from _moved("Python", before.python, after.python)
    yield from _moved("wheels for", before.platform, after.platform)
    yield from _moved("uv", before.uv.version, after.uv.version)
    if before.installer.sha256 != after.installer.sha256:
        yield f"conda's installer is another: {after.installer.url}"
    yield from _packages("conda package", _conda(before), _conda(after))
    yield from _packages("package", before.versions, after.versions)
    for requirement in sorted({*before.wheels} & {*after.wheels}):
        if {w.sha256 for w in before.wheels[requirement]} != {w.sha256 for w in after.wheels[requirement]}:
            yield f"{requirement} has other files under the same version"
    for refused, why in after.instead_of.items():
        if refused not in before.instead_of:
            yield f"{refused} was not taken: {why}"


def _conda(stack: Stack) -> dict[str, str]:
    """Name -> version and build of the conda packages."""
    files = (path.rpartition("/")[2] for path in stack.conda)
    return {file.rsplit("-", 2)[0]: "-".join(file.rsplit("-", 2)[1:]) for file in files}


def _packages(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        yield from _moved(f"{kind} {name}", before.get(name), after.get(name))


def _model(name: str, before: Model, after: Model) -> Iterator[str]:
    if before.commit != after.commit:
        yield f"model {name} moves from commit {before.commit} to {after.commit}"
    changed = sorted(
        path for path in {*before.files, *after.files} if before.files.get(path) != after.files.get(path)
    )
    if changed:
        yield f"model {name}: {len(changed)} files differ: {', '.join(changed[:_NAMED])}"
