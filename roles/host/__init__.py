from roles.host.deploy import prepare

__all__ = ["prepare"]
