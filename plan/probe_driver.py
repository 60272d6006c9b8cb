"""What of an NVIDIA driver is on a host: packages, kernels, what the boot loader will start, what it says."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# What makes a driver: its kernel modules and the libraries that must match them.
_MODULES = re.compile(r"(nvidia-(open-)?kernel(-open)?-dkms|nvidia-dkms.*|kmod-nvidia.*)$")
_LIBRARIES = re.compile(r"(libcuda1|libnvidia-compute.*|nvidia-driver-cuda|nvidia-smi|nvidia-utils.*)$")
_RELEASE = re.compile(r"(?<![\d.])(\d{3}\.\d{2,3}(?:\.\d{2})?)(?![\d])")
# Lines of the kernel log that say what went wrong, not what the driver always says.
_TROUBLE = re.compile(
    r"NVRM: (Xid|GPU .* (fallen|failed)|.*(mismatch|not supported|failed|error))|nvidia.*(Unknown symbol|"
    r"disagrees|verification failed|tainting)|Lockdown|Loading of unsigned module|is rejected|nouveau.*"
    r"(error|fail)|bringup has reset GPU",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Package:
    """An installed package: dpkg's status letters ("ii", "hi", "iF"; of rpm always "ii") and its version."""

    status: str
    version: str

    @property
    def release(self) -> str | None:
        """The driver release that it is of, as in 580.95.05; None for a package with another numbering."""
        found = _RELEASE.search(self.version.split(":")[-1])
        return found[1] if found else None

    @property
    def held(self) -> bool:
        """Whether dpkg keeps it as it is."""
        return self.status.startswith("h")


@dataclass(frozen=True)
class Kernel:
    """A kernel of /lib/modules. `module`: the NVIDIA module's version there. `headers`: "installed",
    "offered" or "missing" by the package manager, "unknown" where it has no index yet."""

    version: str
    bootable: bool
    headers: str
    module: str | None


@dataclass(frozen=True)
class InstalledDriver:
    """What of a driver is on a host.

    Attributes:
        packages: name -> package, of everything that belongs to a driver, and of kernels and headers.
        next_kernel: what the boot loader starts next; None when that cannot be told.
        flavour: of the loaded modules, "open" or "proprietary"; None when none is loaded.
        unowned: a driver file that no package owns, as a `.run` installation leaves them.
        borrowed: a driver file that is mounted from outside, as container tools do it.
        key: what `mokutil` says of the key that signs modules here; "" when it was not asked.
        broken: packages whose installation was cut.
        log: lines of the kernel log since boot that speak of the driver's trouble.
        waiting: why the host waits for a reboot, as an earlier run wrote it down; gone with the boot.
        rebooted: boot id before the newest reboot by this tool, and the driver it was for.
        rebooted_for: GPUs that a reboot for their sake did not help, each with the boot id before it.
        reset: GPUs that this tool has reset in this boot, by the driver's names.
        added: packages that this tool brought.
        locks: what dnf's versionlock holds.
    """

    packages: Mapping[str, Package]
    kernels: tuple[Kernel, ...] = ()
    next_kernel: str | None = None
    flavour: str | None = None
    unowned: str | None = None
    borrowed: str | None = None
    key: str = ""
    broken: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    waiting: str = ""
    rebooted: tuple[str, ...] = ()
    rebooted_for: tuple[tuple[str, str], ...] = ()
    reset: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    locks: tuple[str, ...] = ()

    @property
    def modules(self) -> Mapping[str, Package]:
        """The packages of the kernel modules."""
        return {name: package for name, package in self.packages.items() if _MODULES.match(name)}

    @property
    def parts(self) -> Mapping[str, Package]:
        """The packages that must all be of one release."""
        return {
            name: package
            for name, package in self.packages.items()
            if package.release and (_MODULES.match(name) or _LIBRARIES.match(name))
        }

    @property
    def release(self) -> str | None:
        """The newest release among the parts: what the host will run once they are all of it."""
        releases = [package.release for package in self.parts.values() if package.release]
        return max(releases, key=lambda text: [int(number) for number in text.split(".")], default=None)

    @property
    def installed_flavour(self) -> str | None:
        """The flavour of the modules that are installed."""
        if not self.modules:
            return None
        return "open" if any("open" in name for name in self.modules) else "proprietary"

    def kernel(self, version: str | None) -> Kernel | None:
        """The kernel of that version, if it is installed."""
        return next((kernel for kernel in self.kernels if kernel.version == version), None)


NOTHING = InstalledDriver({})


def parse(blocks: Mapping[str, list[str]]) -> InstalledDriver:
    """Reads the probe's blocks about the driver; a probe without them says that nothing is there."""
    notes = dict(_notes(blocks.get("driver_notes", [])))
    kernels = tuple(_kernels(blocks.get("kernels", [])))
    return InstalledDriver(
        packages=dict(_packages(blocks.get("driver_packages", []))),
        kernels=kernels,
        next_kernel=_next_kernel(blocks.get("boot", []), kernels),
        flavour=_flavour("\n".join(blocks.get("driver_file", []))),
        unowned=notes.get("unowned"),
        borrowed=notes.get("borrowed"),
        key=notes.get("key", ""),
        broken=tuple(notes.get("broken", "").split()),
        log=tuple(line for line in blocks.get("kernel_log", []) if _TROUBLE.search(line)),
        waiting=notes.get("waiting", ""),
        rebooted=tuple(notes.get("rebooted", "").split()),
        rebooted_for=tuple(_pairs(notes.get("rebooted_for", "").split())),
        reset=frozenset(notes.get("reset", "").split()),
        added=frozenset(notes.get("added", "").split()),
        locks=tuple(notes.get("locks", "").split()),
    )


def _notes(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(" ")
        if value.strip():
            yield name, value.strip()


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    yield from zip(words[::2], words[1::2], strict=False)


def _packages(lines: list[str]) -> Iterator[tuple[str, Package]]:
    for line in lines:
        name, status, *version = line.split()
        if version and status[1:2] not in ("", "n", "c"):
            yield name, Package(status, version[0])


def _kernels(lines: list[str]) -> Iterator[Kernel]:
    for line in lines:
        version, image, headers, module = line.split()
        yield Kernel(version, image == "image", headers, None if module == "-" else module)


def _flavour(text: str) -> str | None:
    """From /proc/driver/nvidia/version: "NVIDIA UNIX Open Kernel Module for x86_64  580.95.05 ..."."""
    if "NVRM version" not in text:
        return None
    return "open" if "Open Kernel Module" in text else "proprietary"


def _next_kernel(lines: list[str], kernels: tuple[Kernel, ...]) -> str | None:
    """What the boot loader will start: grubby's word, GRUB's menu, the link, the newest kernel."""
    said = {name: value for name, _, value in (line.partition(" ") for line in lines) if name != "grub"}
    menu = [line.removeprefix("grub ") for line in lines if line.startswith("grub ")]
    image = said.get("grubby") or _from_menu(menu, said) or said.get("link") or ""
    found = re.search(r"vmlinu[xz]-(\S+)", image)
    if found:
        return found[1]
    bootable = [kernel.version for kernel in kernels if kernel.bootable]
    return max(bootable, key=_order, default=None)


def _order(version: str) -> list[tuple[int, str]]:
    """Kernel versions as they follow one another: numbers by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.\-_+]", version)]


def _from_menu(menu: list[str], said: Mapping[str, str]) -> str | None:
    """The kernel line of the entry that GRUB's configuration makes the default."""
    entries = list(_entries(menu))
    default = next((m[1] for m in (re.search(r'set default="([^"]*)"', x) for x in reversed(menu)) if m), "0")
    if "saved_entry" in default or "next_entry" in default:
        default = said.get("saved_entry", "") or "0"
    wanted = (said.get("next_entry") or default).split(">")
    for path, names, kernel in entries:
        if len(path) == len(wanted) and all(
            word == str(number) or word in name
            for word, number, name in zip(wanted, path, names, strict=True)
        ):
            return kernel
    # an entry may be named without the submenu that it stands in
    return next((kernel for _, names, kernel in entries if wanted[-1] in names[-1]), None)


def _entries(menu: list[str]) -> Iterator[tuple[list[int], list[tuple[str, ...]], str]]:
    """Each entry's numbers from the top, its names (title, id) likewise, and the kernel that it starts."""
    top, inner, submenu = -1, -1, ("",)
    path: list[int] = []
    names: list[tuple[str, ...]] = []
    for line in menu:
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        title = tuple(re.findall(r"'([^']*)'", line))
        if word == "submenu":
            top, inner, submenu = top + 1, -1, title
        elif word == "menuentry" and line[0].isspace():
            inner += 1
            path, names = [top, inner], [submenu, title]
        elif word == "menuentry":
            top += 1
            path, names = [top], [title]
        elif word.startswith("linux") and path:
            yield path, names, line.split()[1]
            path = []
