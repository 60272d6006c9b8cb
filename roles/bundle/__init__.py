"""The bundle: checked before anything is changed, and served to the other hosts."""

from roles.bundle.deploy import check, serve, tidy

__all__ = ["check", "serve", "tidy"]
