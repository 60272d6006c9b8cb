from roles.models.deploy import join, start

__all__ = ["join", "start"]
