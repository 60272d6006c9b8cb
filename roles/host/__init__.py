from roles.host.deploy import clear, prepare, stamp

__all__ = ["clear", "prepare", "stamp"]
