from roles.host.deploy import clear, prepare

__all__ = ["clear", "prepare"]
