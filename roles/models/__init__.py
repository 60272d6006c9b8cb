from roles.models.deploy import join, start, tidy

__all__ = ["join", "start", "tidy"]
