"""The sections of the settings, one module each, and the whole of one host."""

from pydantic import BaseModel, ConfigDict, Field

from plan.sections.access import Access
from plan.sections.base import Name, Section
from plan.sections.batch import Batch
from plan.sections.bundle import Bundle
from plan.sections.burn_in import BurnIn
from plan.sections.download import Download, Models
from plan.sections.driver import Driver
from plan.sections.environment import Environment
from plan.sections.ollama import Ollama, OllamaServer
from plan.sections.service import Service
from plan.sections.sources import Sources

__all__ = [
    "Access",
    "Batch",
    "Bundle",
    "BurnIn",
    "Download",
    "Driver",
    "Environment",
    "Models",
    "Ollama",
    "OllamaServer",
    "Section",
    "Service",
    "Settings",
    "Sources",
]


class Settings(BaseModel):
    """The settings of one host, all sections merged."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    serve: dict[Name, Service] = Field(default_factory=dict, description="Services, one entry each.")
    models: Models = Field(
        default_factory=Models,
        description="How models come to hosts, and downloads without a service.",
    )
    driver: Driver = Field(default_factory=Driver, description="The NVIDIA driver.")
    burn_in: BurnIn = Field(default_factory=BurnIn, description="NVIDIA's diagnostic of the GPUs (DCGM).")
    environment: Environment = Field(default_factory=Environment, description="The conda environment.")
    ollama: Ollama = Field(default_factory=Ollama, description="What all services by Ollama share.")
    sources: Sources = Field(default_factory=Sources, description="Where things are fetched from.")
    bundle: Bundle = Field(default_factory=Bundle, description="Who serves the bundle to the other hosts.")
    access: Access = Field(default_factory=Access, description="Who reaches the services.")
