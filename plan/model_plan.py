"""A model on a host's disk, and how models come there: the parts of a host's plan."""

import hashlib
from dataclasses import dataclass, field

from plan.probe import Probe

MODELS_ROOT = "/srv/models"


@dataclass(frozen=True)
class ModelPlan:
    """A model on the host's disk: `directory` exists only when every byte of it is verified.

    Attributes:
        revision: what the settings say; `commit` is what that is in this run, 40 hex digits.
        endpoint: the place that said so.
        include: names or shell patterns of the wanted files; all, when empty. `exclude` goes before it.
        locked: path and sha256 of each file as the lock has them, "" where it knows none.
    """

    model: str
    revision: str
    endpoint: str
    commit: str = field(default="", kw_only=True)
    include: tuple[str, ...] = field(default=(), kw_only=True)
    exclude: tuple[str, ...] = field(default=(), kw_only=True)
    locked: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)

    @property
    def parent(self) -> str:
        """The directory of all revisions of this model."""
        return f"{MODELS_ROOT}/{self.model}"

    @property
    def directory(self) -> str:
        """Where this commit lies; what is served from there is never changed."""
        return f"{self.parent}/{self.commit or self.revision.replace('/', '--')}"

    @property
    def staging(self) -> str:
        """Where it grows until it is whole; a branch that moves meanwhile goes on with what is there."""
        return f"{self.parent}/.{self.slug}.part"

    @property
    def slug(self) -> str:
        """A name for units: short, unambiguous, without signs that systemd would escape."""
        digest = hashlib.sha256(f"{self.model}@{self.revision}".encode()).hexdigest()[:6]
        return f"{self.model.rpartition('/')[2].lower().replace('_', '-')}-{digest}"

    def there(self, probe: Probe) -> bool:
        """Whether the probe saw it whole, by the sizes and times recorded when its hashes were verified."""
        installed = probe.models.get(self.directory)
        if installed is None or not installed.intact(self.model, self.revision, self.commit):
            return False
        files = (installed.manifest.get("include", []), installed.manifest.get("exclude", []))
        return files == (list(self.include), list(self.exclude))

    def begun_gib(self, probe: Probe) -> float:
        """How much of it need not come at best; the download itself looks once it has the list of its files.

        One that was cut goes on with what it has, and files that a commit shares with another are linked.
        """
        commits = [there for path, there in probe.models.items() if path.rpartition("/")[0] == self.parent]
        largest = max((sum(size for size, _ in there.files.values()) for there in commits), default=0)
        return max(probe.model_parts.get(self.staging, 0.0), largest / 2**30)


@dataclass(frozen=True)
class DownloadPlan:
    """How models come to a host.

    Attributes:
        places: where models come from, the first choice first (see `plan.places`).
        verify: "quick" or "full".
        seeds: how many of the hosts that want the same model pull it from its place.
        network: over which hosts exchange models; None: hosts of the same subnet do.
        max_rate_mbit: most that the host takes from outside.
        proxy: URL of the HTTP proxy for downloads.
    """

    places: tuple[str, ...]
    verify: str = "quick"
    seeds: int = 1
    network: str | None = None
    max_rate_mbit: int | None = None
    proxy: str | None = None
