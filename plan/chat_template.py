"""The chat template that a service uses in place of its model's own."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

from plan.errors import SettingsError

DIRECTORY = "/etc/bringup/chat-templates"
IN_MODEL = "model:"
MOST_BYTES = 256 * 1024
# Marks what a model is trained on; transformers reads over it, and Jinja does not know it.
TRAINING_MARK = r"\{%-?\s*(end)?generation\s*-?%\}"


@dataclass(frozen=True)
class ChatTemplate:
    """`path` on the host; `text` of a file of the operator's, None where the model brings the file along."""

    path: str
    text: str | None = None


def of(name: str, setting: str | None, model_directory: str) -> ChatTemplate | None:
    """The template of the service `name`; a changed text is another path, so the unit changes with it.

    Raises:
        SettingsError: the file is missing, empty, too large, or no Jinja template.
    """
    if setting is None:
        return None
    if setting.startswith(IN_MODEL):
        return ChatTemplate(f"{model_directory}/{setting.removeprefix(IN_MODEL)}")
    text = _read(f"serve.{name}.chat_template: {setting}", Path(setting).expanduser())
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return ChatTemplate(f"{DIRECTORY}/{name}-{digest}.jinja", text)


def _read(where: str, file: Path) -> str:
    try:
        data = file.read_bytes()
        text = data.decode()
    except OSError as error:
        raise SettingsError([f"{where}: {error.strerror}. Name a file of this machine."]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{where} is no text in UTF-8. Save it as such."]) from None
    if not text.strip() or len(data) > MOST_BYTES:
        raise SettingsError([f"{where} is empty or over {MOST_BYTES // 1024} KiB. Correct it."])
    try:
        compile_jinja(text)
    except jinja2.TemplateError as error:
        line = f"line {error.lineno}: " if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise SettingsError([f"{where} is no Jinja template: {line}{error.message}. Correct it."]) from None
    return text


def compile_jinja(text: str) -> None:
    """Compiles a template with the extensions that vLLM's own environment has.

    Raises:
        jinja2.TemplateError: it does not compile.
    """
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    environment.from_string(re.sub(TRAINING_MARK, "", text))
