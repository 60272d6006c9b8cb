"""What goes wrong in a plan, as sentences for the operator."""


class PlanError(Exception):
    """This host cannot have what the settings ask for. `sentences`: setting, fact, fix, one each."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class SettingsError(PlanError):
    """A setting is wrong in itself, whatever the host is."""


class ProbeError(PlanError):
    """The host's answer could not be understood."""
